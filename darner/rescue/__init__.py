"""
Check and repair of a damaged store.
"""
