"""
Plain data that all packages share: items, requests, counters and the vocabulary of names and limits.
"""
