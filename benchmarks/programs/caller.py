"""
Opens connections, and prints what came of them: JSON of the seconds that it
took, the CPU seconds of this process, how many connections each process
answered, and how long one took in the middle and at worst but for one in a
hundred.

Its argument is JSON of the keyword arguments of L{Caller}.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from collections import Counter

DEADLINE = 120.0
ABORT = struct.pack("ii", 1, 0)


class Caller:
    """
    Opens so many connections to a port, waits for four bytes on each, and for
    its end.

    @ivar count: how many.
    @ivar most: at most so many at a time.
    @ivar burst: so many become due together.
    @ivar pause: seconds between these; 0 when all are due at once.
    @ivar hold: whether they stay open, all of them until the end.
    @ivar sources: from how many addresses they come.
    """

    def __init__(
        self,
        port: int,
        count: int,
        most: int,
        burst: int = 1,
        pause: float = 0.0,
        hold: bool = False,
        sources: int = 1,
    ) -> None:
        self._target = ("127.0.0.1", port)
        self.count = count
        self.most = most
        self.burst = burst
        self.pause = pause
        self.hold = hold
        self.sources = sources
        self.answers: Counter[int] = Counter()
        self.times: list[float] = []
        self._opened = 0
        self._open: dict[int, tuple[socket.socket, float]] = {}
        self._held: list[socket.socket] = []
        self._poller = select.epoll()

    def run(self) -> dict[str, object]:
        """
        Do it all.
        """
        cpu, self._begun = time.process_time(), time.perf_counter()
        while len(self.times) < self.count:
            self._turn(self._openDue())
        wall = time.perf_counter() - self._begun
        cpu = time.process_time() - cpu
        for each in self._held:
            each.close()
        self.times.sort()
        return {
            "wall": wall,
            "cpu": cpu,
            "answers": dict(self.answers),
            "middle": self.times[self.count // 2],
            "worst": self.times[self.count * 99 // 100],
        }

    def _openDue(self) -> float:
        """
        Open what is due.

        @return: the seconds until there is more to open, if nothing happens.
        """
        now = time.perf_counter()
        while self._opened < self.count and len(self._open) < self.most:
            wait = self._begun + self._opened // self.burst * self.pause - now
            if wait > 0:
                return wait
            self._connect(now)
            now = time.perf_counter()
        return DEADLINE

    def _connect(self, now: float) -> None:
        skt = socket.socket()
        # Nothing is left in TIME_WAIT, of which there is no end otherwise.
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        if self.sources > 1:
            number = self._opened % self.sources
            skt.bind((f"127.1.{number >> 8}.{number & 255}", 0))
        skt.connect(self._target)
        skt.setblocking(False)
        self._opened += 1
        self._open[skt.fileno()] = skt, now
        self._poller.register(skt, select.EPOLLIN)

    def _turn(self, wait: float) -> None:
        found = self._poller.poll(wait, 256)
        if not found and time.perf_counter() - self._begun > DEADLINE:
            sys.exit(f"{len(self._open)} connections without an answer")
        for number, _ in found:
            skt, begun = self._open[number]
            data = skt.recv(16)
            if data:
                self.answers[struct.unpack("!i", data)[0]] += 1
            if data and not self.hold:
                continue
            self.times.append(time.perf_counter() - begun)
            del self._open[number]
            if self.hold:
                self._poller.unregister(number)
                self._held.append(skt)
            else:
                skt.close()


print(json.dumps(Caller(**json.loads(sys.argv[1])).run()))
