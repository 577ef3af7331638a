from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamServerEndpointStringParser)
class _MutualTLS:
    """``mtls:``, which is in `darner.net.mtls`: imported when somebody uses it."""

    prefix = "mtls"

    def parseStreamServer(self, reactor, *arguments, **named):
        from darner.net.mtls import mutual_tls_endpoint

        return mutual_tls_endpoint(reactor, *arguments, **named)


mutual_tls = _MutualTLS()
