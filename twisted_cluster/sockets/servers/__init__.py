"""
Listening sockets that one process binds and others listen on.
"""
