"""
The log of a cluster, as settings say where it is.
"""

from __future__ import annotations

import ssl
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
    @param key: by default it is in the file of the certificate.
    @return: the log; nothing is connected yet.
    @raise SettingsError: a file cannot be read or used, settings contradict each other, or packages are missing.
    """
    try:
        from darner.cluster.etcd.log import EtcdLog
        from darner.cluster.etcd.settings import Credentials
    except ImportError as error:
        raise SettingsError(f"a cluster needs more packages: pip install 'darner[cluster]' ({error})") from error
    where = parse_cluster(url)
    if key is not None and certificate is None:
        raise SettingsError(f"there is a key for etcd, {key}, and no certificate")
    if password_file is not None and user is None:
        raise SettingsError(f"there is a password for etcd, in {password_file}, and no user")
    key = key or certificate
    password = _password(password_file)
    credentials = Credentials(_content(ca_file), _content(certificate), _content(key), user, password, where.tls)
    _check(ca_file, certificate, key)
    return EtcdLog(reactor, where.endpoints, where.name, credentials)


def _content(path: Optional[str]) -> Optional[bytes]:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error


def _password(path: Optional[str]) -> str:
    try:
        return "".join((_content(path) or b"").decode().splitlines()[:1])
    except UnicodeDecodeError:
        raise SettingsError(f"the password in {path} is not UTF-8") from None


def _check(ca_file: Optional[str], certificate: Optional[str], key: Optional[str]) -> None:
    """The library that speaks TLS aborts the process where it cannot use a key, and waits where it has no authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    using = ca_file
    try:
        if ca_file is not None:
            context.load_verify_locations(ca_file)
        using = certificate if key == certificate else f"{certificate} with the key in {key}"
        if certificate is not None:
            context.load_cert_chain(certificate, key, "")
    except (ValueError, OSError) as error:
        raise SettingsError(f"cannot use {using} for etcd: {error}") from error
