"""
The endpoint ``mtls:``: TLS for clients that have a certificate.

Twisted's own ``ssl:`` endpoint accepts any client.  This one is a plugin (``twisted/plugins/darner_endpoint.py``), so
that any Twisted application can use it::

    mtls:22134:privateKey=key.pem:certKey=cert.pem:clientCA=ca.pem

It needs the packages of ``darner[tls]``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from OpenSSL.crypto import FILETYPE_PEM
from twisted.internet import ssl
from twisted.internet.endpoints import SSL4ServerEndpoint

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def _certificates(path: str) -> list[ssl.Certificate]:
    """@raise ValueError: the file has no certificate."""
    found = [ssl.Certificate.loadPEM(pem) for pem in _CERTIFICATE.findall(Path(path).read_bytes())]
    if not found:
        raise ValueError(f"{path} has no certificate in PEM format")
    return found


def mutual_tls_endpoint(
    reactor: Any,
    port: str,
    clientCA: str,
    privateKey: str = "server.pem",
    certKey: str = "",
    interface: str = "",
    backlog: str = "50",
) -> SSL4ServerEndpoint:
    """
    Create an endpoint; the arguments are those of the endpoint string.

    @param clientCA: file with the certificates, in PEM, of the authorities that sign clients' certificates.  The
        handshake fails for a client without a certificate that one of them has signed.
    @param privateKey: file with the server's key, in PEM.
    @param certKey: file with the server's certificate and its chain, in PEM; by default the file of the key.
    @raise ValueError: a file has no certificate.
    @raise OSError: a file cannot be read.
    """
    certificate, *chain = _certificates(certKey or privateKey)
    key = ssl.KeyPair.load(Path(privateKey).read_bytes(), FILETYPE_PEM)
    options = ssl.CertificateOptions(
        privateKey=key.original,
        certificate=certificate.original,
        extraCertChain=[one.original for one in chain],
        trustRoot=ssl.trustRootFromCertificates(_certificates(clientCA)),
    )
    return SSL4ServerEndpoint(reactor, int(port), options, int(backlog), interface)
