"""
Taking over the queues of other servers: ``darner import``.
"""
