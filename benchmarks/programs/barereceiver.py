"""
Receives descriptors on descriptor 3, one a message, each with an integer, by a
plain blocking loop.  A message without one says how many are to come; when they
have come, it is answered.
"""

from __future__ import annotations

import os
import socket
import struct

INTEGER = struct.Struct("!I")


def main() -> None:
    with socket.socket(fileno=3) as peer:
        while True:
            data, _, _, _ = socket.recv_fds(peer, INTEGER.size, 1)
            if not data:
                return
            (count,) = INTEGER.unpack(data)
            for number in range(count):
                data, descriptors, _, _ = socket.recv_fds(peer, INTEGER.size, 1)
                assert INTEGER.unpack(data) == (number,)
                os.close(descriptors[0])
            peer.sendall(b".")


main()
