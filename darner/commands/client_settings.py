"""
How the program reaches servers, and how it writes: from the command line, the environment and a file.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Optional

from darner.commands.exits import USAGE, Failure

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_SERVERS: Final = "127.0.0.1:22133"


@dataclass
class ClientSettings:
    """
    What all commands share.

    @ivar servers: as `darner.client.servers.source` takes them.
    @ivar password_file: a file whose first line is the password.
    @ivar http: the base URL of the admin HTTP of a server, for what is not told by the protocol.
    @ivar timeout: seconds that a call may take, besides its wait for an item.
    @ivar json: whether to write JSON in place of text.
    @ivar quiet: whether to leave out what only says that all went well.
    """

    servers: str = DEFAULT_SERVERS
    user: str = ""
    password: str = ""
    password_file: str = ""
    tls: bool = False
    ca_file: str = ""
    certificate: str = ""
    key: str = ""
    server_hostname: str = ""
    http: str = ""
    timeout: float = 10.0
    json: bool = False
    quiet: bool = False

    def secret(self) -> str:
        """
        @return: the user's password.
        @raise Failure: the file cannot be read, or is empty.
        """
        if self.password or not self.password_file:
            return self.password
        try:
            lines = Path(self.password_file).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(f"cannot read the password from {self.password_file}: {reason(error)}", USAGE) from None
        if not lines or not lines[0]:
            raise Failure(f"there is no password in the first line of {self.password_file}", USAGE)
        return lines[0]

    def login(self) -> dict[str, str]:
        """@return: user and password, as clients take them."""
        if not self.user:
            return {}
        return {"user": self.user, "password": self.secret()}

    def context(self) -> Optional[ssl.SSLContext]:
        """
        @return: how to speak TLS; C{None} for not at all.
        @raise Failure: a certificate cannot be read.
        """
        if not (self.tls or self.ca_file or self.certificate):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key or None)
        except (OSError, ssl.SSLError) as error:
            name = self.certificate if self.certificate and "cafile" not in str(error) else self.ca_file
            raise Failure(f"cannot read the certificates in {name}: {reason(error)}", USAGE) from None
        return context


def reason(error: BaseException) -> str:
    """@return: what went wrong, in a few words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


OF_FILE: Final[dict[str, Any]] = {
    "servers": (str, list), "user": str, "password_file": str, "tls": bool, "ca_file": str, "certificate": str,
    "key": str, "server_hostname": str, "http": str, "timeout": (int, float),
}  # fmt: skip
"""What the file may say, and of which type that is."""


def default_path(environment: Mapping[str, str] = os.environ) -> Path:
    """@return: where the file is that is read where none is named."""
    base = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "darner" / "client.toml"


def read(path: Path) -> dict[str, Any]:
    """
    @return: the settings in a file, by name.
    @raise Failure: it cannot be read, or says what is not known.
    """
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise Failure(f"cannot read {path}: {reason(error)}", USAGE) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failure(f"{path} is not TOML: {error}", USAGE) from None
    for name, value in values.items():
        if name not in OF_FILE:
            raise Failure(f"{path}: unknown setting {name}; there are {', '.join(OF_FILE)}", USAGE)
        if not isinstance(value, OF_FILE[name]) or (isinstance(value, bool) and OF_FILE[name] is not bool):
            raise Failure(f"{path}: {name}: {value!r} is of the wrong type", USAGE)
    if isinstance(values.get("servers"), list):
        values["servers"] = ",".join(map(str, values["servers"]))
    return values
