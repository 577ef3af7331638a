"""
The queues and their group commit.
"""
