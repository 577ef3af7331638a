"""
Where queues are kept: the interface of a store, its records, LevelDB and the twin in memory.
"""
