from twisted.application.service import ServiceMaker

darner = ServiceMaker(
    "darner", "darner.cli.plugin", "A durable message queue server that speaks the memcache protocol.", "darner"
)
