"""
C{python -m benchmarks.loadclient PLAN}.
"""

from benchmarks.loadclient.running import main

main()
