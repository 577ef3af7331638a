"""
Readers for LevelDB's files, without LevelDB: logs, manifests, tables and their checksum.
"""
