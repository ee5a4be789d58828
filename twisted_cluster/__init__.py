"""
Run one Twisted program in many processes on the same sockets.

  - C{watcher}, C{cluster}: what you call, in the watcher's process and in the
    program that the workers run; C{tap} and C{cli} are the commands.
  - C{interfaces}, C{errors}: what the calls promise and how they fail.
  - C{supervisor}: the watcher's side; C{worker}: the worker's side; they meet
    only in C{ipc}, what the two sides say to each other.
  - C{policy}: decisions without I/O; C{sockets}: sockets between processes.
"""

__version__ = "0.1.0"
