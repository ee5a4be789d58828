"""
Writes as many bytes to descriptor 3 as each line that it reads there says.
"""

from __future__ import annotations

import socket

with socket.socket(fileno=3) as connection, connection.makefile("rb") as lines:
    connection.setblocking(True)
    for line in lines:
        connection.sendall(bytes(int(line)))
