"""
Decisions only.  What is in here is told what happened and when, and returns
what to do; it never touches a reactor, a socket, a process or a clock.
"""
