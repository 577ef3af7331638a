"""
darner: a durable message queue server that speaks the memcache text protocol, on Twisted and LevelDB.

Applications embed it through `darner.service`; `docs/embedding.rst` shows how.
"""

__version__ = "1.0.0.dev0"
