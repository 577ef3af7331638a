"""
What is too slow for a test: this server beside others, in one run.

``python -m bench`` runs all of it and writes ``docs/benchmarks.rst``; ``python -m bench flood`` runs one and prints
it.  The modules `flood`, `memory`, `fairness` and `packing` ask what the benchmarks of the C++ Darner asked; the others
what else somebody wants to know who chooses a queue server.

``python -m bench.torture`` measures nothing: it kills this server again and again, and checks what it promised.
"""
