from twisted.application.service import ServiceMaker

darner = ServiceMaker(
    "darner", "darner.plugin", "A durable message queue server that speaks the memcache protocol.", "darner"
)
