"""
A cluster: nodes that share a log of records.  Nothing of it is imported without C{--cluster}.
"""
