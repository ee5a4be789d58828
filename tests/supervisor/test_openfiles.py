"""
How many files are kept free.
"""

from __future__ import annotations

import os
import resource
import socket
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import room
from twisted_cluster.supervisor import openfiles


class OpenFilesTests(SynchronousTestCase):
    """
    A process with a limit of open files.
    """

    def limited(self, soft: int) -> None:
        """
        Pretend that there is a limit.
        """
        self.patch(resource, "getrlimit", lambda what: (soft, soft))

    def test_limit(self) -> None:
        """
        Of many files, 64 are kept free; of few, an eighth.
        """
        for most, first in ((65536, 65472), (1024, 960), (256, 224), (64, 56)):
            self.limited(most)
            self.assertEqual((openfiles.limit(), openfiles.scarce()), (most, first))

    def test_noLimit(self) -> None:
        """
        There need not be a limit.
        """
        self.limited(resource.RLIM_INFINITY)
        self.assertEqual(openfiles.limit(), sys.maxsize)
        self.assertGreater(openfiles.scarce(), 2**40)

    def test_areFew(self) -> None:
        """
        The lowest descriptor that is free tells whether there are others than those.
        """
        highest = max(map(int, os.listdir("/proc/self/fd")))
        while (filled := os.open(os.devnull, os.O_RDONLY)) < highest:
            self.addCleanup(os.close, filled)
        os.close(filled)
        with socket.socket() as skt:
            self.assertFalse(openfiles.areFew(skt))
            with room(0):
                self.assertTrue(openfiles.areFew(skt))
            with room(1):
                self.assertTrue(openfiles.areFew(skt))
