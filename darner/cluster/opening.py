"""
The log of a cluster, as settings say where it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from darner.cluster.interfaces import ILog
from darner.config.clusters import parse_cluster
from darner.errors import SettingsError


def open_log(
    reactor: Any, url: str, user: Optional[str] = None, password_file: Optional[str] = None,
    ca_file: Optional[str] = None, certificate: Optional[str] = None, key: Optional[str] = None,
) -> ILog:  # fmt: skip
    """
    @param url: as for L{parse_cluster}; the rest as in L{darner.config.settings.Settings}.
    @return: the log; nothing is connected yet.
    @raise SettingsError: a file cannot be read, or packages are missing.
    """
    try:
        from darner.cluster.etcd.log import EtcdLog
        from darner.cluster.etcd.settings import Credentials
    except ImportError as error:
        raise SettingsError(f"a cluster needs more packages: pip install 'darner[cluster]' ({error})") from error
    where = parse_cluster(url)

    def content(path: Optional[str]) -> Optional[bytes]:
        try:
            return None if path is None else Path(path).read_bytes()
        except OSError as error:
            raise SettingsError(f"cannot read {path}: {error.strerror}") from error

    password = (content(password_file) or b"").partition(b"\n")[0].decode()
    credentials = Credentials(content(ca_file), content(certificate), content(key), user, password, where.tls)
    return EtcdLog(reactor, where.endpoints, where.name, credentials)
