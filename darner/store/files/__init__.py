"""
LevelDB's files, read without LevelDB: logs, manifests, tables and their checksum.
"""
