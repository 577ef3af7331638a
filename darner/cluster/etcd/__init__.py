"""
The log in etcd, by its API version 3 over gRPC.
"""
