"""
What is run from a command line: the server, darner-passwd and darner-bench.
"""
