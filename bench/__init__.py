"""
Measurements and checks that are too slow for a test.

``python -m bench`` compares this server with others and writes ``docs/benchmarks.rst``; ``python -m bench flood`` runs
one benchmark and prints it.  `flood`, `memory`, `fairness` and `packing` are those of the C++ Darner; the others have
further figures that matter for the choice of a queue server.

``python -m bench.torture`` measures nothing: it kills this server again and again, and checks its promises.
"""
