"""
The tests of C{twisted_cluster.sockets}.
"""
