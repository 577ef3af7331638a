"""
Why a server cannot listen somewhere, in a line.
"""

from __future__ import annotations

from twisted.internet.error import CannotListenError


def cannot_listen(error: CannotListenError) -> str:
    """@return: the reason, in one line."""
    reason = getattr(error.socketError, "strerror", None) or error.socketError
    port = error.port.decode(errors="replace") if isinstance(error.port, bytes) else error.port
    return f"cannot listen: {error.interface or 'any address'}:{port}: {reason}"


def wrong_with_endpoint(description: str, error: Exception) -> str:
    """@return: what is wrong with an endpoint, in plainer words than Twisted's where these are unclear."""
    if isinstance(error, ImportError):
        return f"TLS needs more packages: pip install 'darner[tls]' ({error})"
    if isinstance(error, KeyError) and description.startswith("systemd:"):
        return f"systemd has passed no socket of that name ({error}), see FileDescriptorName= in systemd.socket(5)"
    if isinstance(error, IndexError) and description.startswith("systemd:"):
        return "systemd has passed no socket of that number"
    if isinstance(error, KeyError):
        return f"argument missing or misspelled: {error}"
    return str(error)
