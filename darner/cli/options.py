"""
The command line.

It is read before anything of Twisted's network is imported (`darner.cli.plugin`), and so imports none of it.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from twisted.python import usage

import darner
from darner.config.checks import meant
from darner.config.settings import Listener, Settings, make_settings, read_toml


def say(text: str) -> None:
    """Print to standard output, whether or not somebody reads all of it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What is flushed at the end of the process is not to fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Options(usage.Options):
    """The command line.  What is given here wins over the configuration file."""

    synopsis = "[options]"
    longdesc = (
        "darner is a durable message queue server that speaks the memcache text protocol, as Kestrel and Darner do.  "
        "Queues are kept in the data directory; point any memcache client at the port."
    )

    optParameters = [
        ["data-dir", "d", None, "Directory in which the queues are kept; made if it is missing.  [default: data]"],
        ["port", "p", None, "TCP port to listen on.  [default: 22133, or none where --listen is given]"],
        ["interface", "i", None, "Address to listen on with --port.  [default: 127.0.0.1]"],
        ["text-port", None, None, "TCP port for Kestrel's text protocol, at the same address.  [default: none]"],
        ["http-port", None, None, "TCP port for the dashboard, the HTTP API and metrics.  [default: none]"],
        ["http-interface", None, None, "Address to listen on with --http-port.  [default: 127.0.0.1]"],
        ["log-format", None, None, "How the log is written: 'text', or 'json', an object a line.  [default: text]"],
        ["log-level", None, None, "The lowest level that is logged: debug, info, warn, error.  [default: debug]"],
        ["config", "c", None, "TOML file with settings, of the same names as here with _ in place of -."],
        ["password-file", None, None, "File with users and passwords; clients have to log in.  See darner-passwd."],
        ["min-free-bytes", None, None,
         "Room on the disk below which sets are refused, such as 1GiB; 0 for none.  [default: 64MiB, at most 5 %]"],
        ["dialect", None, None, "Whose clients replies are made for: 'kestrel' or 'memcache'.  [default: kestrel]"],
    ]

    optFlags = [
        ["debug", None, "Log connections and refused requests."],
        ["check", None, "Read all of the data directory, say what is damaged, and exit: with 1 if anything is."],
        ["repair", None, "Set what is damaged in the data directory aside, save what can be read, and serve that."],
    ]

    compData = usage.Completions(
        optActions={"data-dir": usage.CompleteDirs(), "config": usage.CompleteFiles("*.toml")}
    )

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Listener] = []
        self.http_listeners: list[str] = []

    def opt_listen(self, endpoint: str) -> None:
        """
        Listen at a Twisted server endpoint as well, such as tcp6:22133, unix:/run/darner.sock,
        ssl:22134:privateKey=key.pem:certKey=cert.pem or systemd:domain=INET:index=0.  May be given several times.
        """
        self.listeners.append(Listener(endpoint))

    def opt_http_listen(self, endpoint: str) -> None:
        """
        Serve HTTP at a Twisted server endpoint as well, such as ssl:2224:privateKey=key.pem:certKey=cert.pem or
        unix:/run/darner/http.sock.  May be given several times.
        """
        self.http_listeners.append(endpoint)

    def opt_version(self) -> None:
        """Print darner's version, and exit."""
        say(f"darner {darner.__version__}")
        sys.exit(0)

    def opt_help(self) -> None:
        """Display this help and exit."""
        say(str(self))
        sys.exit(0)

    def parseArgs(self, *arguments: str) -> None:
        """@raise usage.UsageError: there are arguments that belong to no option."""
        if arguments:
            raise usage.UsageError(f"unexpected argument: {arguments[0]}")

    def parseOptions(self, options: Any = None) -> None:
        """
        @raise SystemExit: with status 2, after one line on standard error, where they are wrong.  twistd would print
            all of its own help.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            match = re.match(r"option (--\S+) not recognized", str(error))
            hint = meant(match[1], ["--" + name.rstrip("=") for name in self.longOpt]) if match is not None else ""
            print(f"darner: {error}{hint}; --help lists the options", file=sys.stderr)
            sys.exit(2)

    def postOptions(self) -> None:
        """@raise usage.UsageError: a port is not a number."""
        # twistd may change the directory before the file is read again.
        self._config = None if self["config"] is None else Path(self["config"]).absolute()
        for name in ("port", "text-port", "http-port"):
            if self[name] is not None:
                try:
                    self[name] = int(self[name])
                except ValueError:
                    raise usage.UsageError(f"--{name} is not a number: {self[name]}") from None

    def settings(self) -> Settings:
        """
        @return: the settings of the configuration file and the command line.
        @raise SettingsError: one of them is wrong.
        """
        values: dict[str, Any] = {}
        source = "command line"
        if self._config is not None:
            source = self["config"]
            values = read_toml(self._config, source)
            # What the file has wrong is the file's; that users need passwords, both may see to.
            named = {} if self["password-file"] is None else {"password_file": self["password-file"]}
            make_settings({**values, **named}, source)
            source = f"{source} and command line"
        for name in (
            "data-dir", "port", "text-port", "interface", "min-free-bytes", "dialect", "password-file", "http-port",
            "http-interface", "log-format", "log-level",
        ):  # fmt: skip
            if self[name] is not None:
                values[name.replace("-", "_")] = self[name]
        if self["debug"]:
            values["debug"] = True
        if self.listeners:
            values["listen"] = [listener.endpoint for listener in self.listeners]
        if self.http_listeners:
            values["http_listen"] = self.http_listeners
        return make_settings(values, source)
