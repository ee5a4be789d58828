"""
Whose rights something is done with.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import shortDirectory
from twisted_cluster.sockets.addresses import Address, BindRequest
from twisted_cluster.sockets.servers.binding import bindSocket, makeSocket
from twisted_cluster.supervisor.procfs import Credentials
from twisted_cluster.supervisor.rights import withRightsOf


class CredentialsTests(SynchronousTestCase):
    """
    Whose rights a worker has.
    """

    @skipIf(os.geteuid() != 0, "only root can act for others")
    def test_shed(self) -> None:
        """
        What is done with another's rights is refused as it would be to him,
        and the rights come back.
        """
        path = os.path.join(shortDirectory(self), "s").encode()
        wanted = BindRequest(Address.unix(path))
        error = self.assertRaises(
            OSError,
            withRightsOf,
            Credentials(65534, 65534),
            lambda: bindSocket(wanted, makeSocket(wanted.address), 1),
        )
        self.assertEqual(errno.EACCES, error.errno)
        self.assertEqual((0, 0), (os.geteuid(), os.getegid()))

    @skipIf(os.geteuid() != 0, "only root can act for others")
    def test_groups(self) -> None:
        """
        The watcher's own groups open nothing to a worker that has left them,
        the worker's do, and the watcher's come back whatever happens.
        """
        directory = shortDirectory(self)
        os.chmod(directory, 0o770)
        os.mkdir(os.path.join(directory, "d" * 150))
        os.chmod(os.path.join(directory, "d" * 150), 0o770)
        done = subprocess.run(
            [sys.executable, "-c", GROUPS, directory],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.assertEqual("", done.stderr)
        self.assertEqual(
            ["13", "bound", "13", "bound", "RuntimeError", "[0, 7]"],
            done.stdout.split("\n")[:-1],
        )


GROUPS = """
import os, sys
from twisted_cluster.sockets.addresses import Address, BindRequest
from twisted_cluster.sockets.servers.binding import bindSocket, makeSocket
from twisted_cluster.supervisor.procfs import Credentials
from twisted_cluster.supervisor.rights import withRightsOf

def attempt(groups, action):
    try:
        withRightsOf(Credentials(65534, 65534, groups), action)
    except OSError as error:
        print(error.errno)
    except RuntimeError as error:
        print("RuntimeError")
    else:
        print("bound")

def bind(name=b"/s"):
    address = Address.unix(os.fsencode(sys.argv[1]) + name)
    bindSocket(BindRequest(address), makeSocket(address), 1).close()

def fail():
    raise RuntimeError()

os.setgroups([0, 7])
attempt((), bind)
attempt((0,), bind)
attempt((7,), bind)
attempt((0,), lambda: bind(b"/" + b"d" * 150 + b"/s"))
attempt((), fail)
print(sorted(os.getgroups()))
"""
"""
A watcher of groups 0 and 7, and workers of others.
"""
