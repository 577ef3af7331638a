"""
What is run from a command line: the server, darner-passwd and darner-bench.  The program ``darner`` is in
`darner.commands`.
"""
