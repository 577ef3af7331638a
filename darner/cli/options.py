"""
The command line.

This module is imported before any of Twisted's networking (`darner.cli.plugin`), and so must import none of it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from twisted.python import usage

import darner
from darner.cli.output import say
from darner.config.checks import meant
from darner.config.settings import Listener, Settings, make_settings, read_toml


class Options(usage.Options):
    """The options of the command line, which override the configuration file."""

    synopsis = "[options]"
    longdesc = (
        "darner is a durable message queue server that speaks the memcache text protocol, as Kestrel and Darner do.  "
        "Queues are kept in the data directory; point any memcache client at the port."
    )

    optParameters = [
        ["data-dir", "d", None, "Directory of the queues; created if missing.  [default: data]"],
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
         "Free disk space below which sets are refused, such as 1GiB; 0 for none.  [default: 64MiB, at most 5 %]"],
        ["cluster", None, None, "Be a node of a cluster, whose log is at etcd://HOST:PORT,HOST:PORT/NAME."],
        ["cluster-node", None, None, "Name of this node.  [default: the machine's]"],
        ["cluster-shard", None, None, "K/N: this log has the queues of shard K of N.  [default: all queues]"],
        ["cluster-http-port", None, None, "TCP port for health and metrics of the node.  [default: none]"],
        ["cluster-port", None, None, "TCP port where the node gives snapshots to others.  [default: a free one]"],
        ["dialect", None, None, "Reply as clients of 'kestrel' or of 'memcache' expect.  [default: kestrel]"],
    ]

    optFlags = [
        ["debug", None, "Log connections and refused requests."],
        ["cluster-prefer", None, "Lead rather than other nodes of the cluster, where this one can."],
        ["check", None, "Check the whole data directory, report damage, and exit; the status is 1 if there is any."],
        ["repair", None, "Repair the data directory if it is damaged, keeping all that can be read, then serve it."],
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
        Listen on this Twisted server endpoint too, such as tcp6:22133, unix:/run/darner.sock,
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
        """@raise usage.UsageError: there are arguments besides the options."""
        if arguments:
            raise usage.UsageError(f"unexpected argument: {arguments[0]}")

    def parseOptions(self, options: Any = None) -> None:
        """
        @raise SystemExit: with status 2, after one line on standard error, if they are wrong.  twistd would print all
            of its own help.
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
        # Absolute, as twistd may change the working directory before a reload.
        self._config = None if self["config"] is None else Path(self["config"]).absolute()
        for name in ("port", "text-port", "http-port", "cluster-http-port", "cluster-port"):
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
            # Check the file alone, so that errors name it; some may need others of the command line.
            named = {name.replace("-", "_"): self[name] for name in ("password-file", "cluster") if self[name]}
            make_settings({**values, **named}, source)
            source = f"{source} and command line"
        for name in (
            "data-dir", "port", "text-port", "interface", "min-free-bytes", "dialect", "password-file", "http-port",
            "http-interface", "log-format", "log-level", "cluster", "cluster-node", "cluster-shard",
            "cluster-http-port", "cluster-port",
        ):  # fmt: skip
            if self[name] is not None:
                values[name.replace("-", "_")] = self[name]
        for name in ("debug", "cluster-prefer"):
            if self[name]:
                values[name.replace("-", "_")] = True
        if self.listeners:
            values["listen"] = [listener.endpoint for listener in self.listeners]
        if self.http_listeners:
            values["http_listen"] = self.http_listeners
        return make_settings(values, source)
