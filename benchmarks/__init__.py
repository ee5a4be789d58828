"""
How fast the parts of C{twisted_cluster} are, each beside what one would use
without it, measured alternately in one run: C{python -m benchmarks}.
"""
