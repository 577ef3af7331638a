"""
Check an installation of darner: does twistd find the plugin, start the server, and does that serve?  Is the program
``darner`` there, and does it say what to install where it lacks something?

Run it by the Python of the environment in question, from a directory that is empty.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import darner

PATIENCE = 120
"""Seconds after which what does not happen is an error."""


def main() -> None:
    twistd = str(Path(sys.executable).parent / "twistd")
    listed = subprocess.run([twistd, "--help"], check=True, capture_output=True, text=True).stdout
    if not re.search(r"^ +darner +A durable message queue", listed, re.MULTILINE):
        sys.exit("twistd does not know darner")
    program = str(Path(sys.executable).parent / "darner")
    said = subprocess.run([program, "--version"], capture_output=True, text=True)
    if (said.returncode, said.stdout[:7]) != (0, "darner ") and "pip install 'darner[cli]'" not in said.stderr:
        sys.exit(f"the program darner does not work: {said.stdout}{said.stderr}")
    log = Path("log")
    with log.open("wb") as out:
        command = [twistd, "--nodaemon", "--pidfile=", "darner", "--port=0", "--data-dir=data"]
        server = subprocess.Popen(command, stdout=out)
    try:
        until = time.monotonic() + PATIENCE
        while (listening := re.search(r"host='127\.0\.0\.1', port=(\d+)\)", log.read_text())) is None:
            if server.poll() is not None or time.monotonic() > until:
                sys.exit(f"the server did not start:\n{log.read_text()}")
            time.sleep(0.01)
        with socket.create_connection(("127.0.0.1", int(listening[1])), PATIENCE) as client:
            client.sendall(b"set q 5 0 5\r\nhello\r\nget q\r\nquit\r\n")
            replies = client.makefile("rb").read()
        if replies != b"STORED\r\nVALUE q 5 5\r\nhello\r\nEND\r\n":
            sys.exit(f"the server answers wrongly: {replies!r}")
        server.send_signal(signal.SIGTERM)
        if server.wait(PATIENCE) != 0:
            sys.exit(f"the server ended with status {server.returncode}")
    finally:
        server.kill()
    print(f"darner {darner.__version__} of {Path(darner.__file__).parent} serves")


if __name__ == "__main__":
    main()
