"""
Tests of L{twisted_cluster.worker.drain}.
"""
