"""
What goes along with the connections that the watcher hands over.
"""

from __future__ import annotations

import struct
from typing import Final

LISTENER: Final = struct.Struct("!I")
"""
With each connection, either way: the number of the listening socket that it was
accepted on, as in the answer to
L{twisted_cluster.sockets.servers.commands.RequestSocket}.  What follows was read
from the connection already, and not used.
"""

UNREAD: Final = 64 * 1024
"""
How many bytes may follow: neither process keeps more for the other than it reads at
once.
"""

LARGEST: Final = LISTENER.size + UNREAD
"""
The most bytes of data that a connection comes with, either way.
"""

ENDED: Final = struct.Struct("!I")
"""
Worker to watcher, as a note: how many connections have ended that were taken.
"""
