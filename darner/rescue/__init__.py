"""
What is done for a damaged store: check, repair, survey and salvage.
"""
