"""
Snapshots: a node whose records are trimmed, or whose disk is lost, takes the store of another one over the network.
"""
