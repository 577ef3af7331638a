"""
Front ends: sessions, the memcache protocol, Kestrel's text protocol, rights, and calls of applications.
"""
