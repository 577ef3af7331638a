"""
Backups: a copy of a store as of one moment, directories and streams of them, and restoring.
"""
