"""
The store: its interface, its records, the engine on LevelDB and the engine in memory.
"""
