"""
Programs that are started by root and do not stay root; and sockets that a
service manager opened.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from unittest import skipUnless

from tests.integration.clients import PID_SCRIPT, Connect, httpBody, toTCP
from tests.integration.support import ROOT, ClusterTestCase, answersOf, get, reactor
from tests.integration.workers import environment, fromEach, inThread, setEnvironment

TWISTD = "from twisted.scripts.twistd import run; run()"
HOST = f"127.82.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250 + 1}"
NOBODY = pwd.getpwnam("nobody")

SHEDDING = """
import os
from twisted.application.internet import TCPServer
from twisted.application.service import Application
from twisted.internet import endpoints, reactor
from twisted.web.resource import Resource
from twisted.web.server import Site

# Made here, since nobody may be unable to read what is imported later.
shared = endpoints.serverFromString(reactor, "cluster:tcp:83:interface=%(host)s")
failures = []

class Who(Resource):
    isLeaf = True
    def render_GET(self, request):
        text = f"{os.getpid()} {os.getresuid()} {os.getresgid()}"
        try:
            if request.path == b"/port":
                reactor.listenTCP(83, request.site, interface=%(host)r)
            elif request.path == b"/again":
                reactor.listenTCP(82, request.site, interface=%(host)r)
            elif request.path == b"/path":
                reactor.listenUNIX(%(path)r, request.site)
            elif request.path == b"/cluster":
                listening = shared.listen(request.site)
                listening.addErrback(lambda failure: failures.append(failure.value))
                if failures:
                    raise failures.pop()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
        return text.encode()

application = Application("shedding", uid=%(uid)d, gid=%(gid)d)
TCPServer(82, Site(Who()), interface=%(host)r).setServiceParent(application)
"""

PRIVILEGED = """
import os
from twisted.application.internet import TCPServer
from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin
from twisted.python.usage import Options as _Options
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

class Who(Resource):
    isLeaf = True
    def render_GET(self, request):
        return f"{os.getpid()} {self.uids} {os.geteuid()}".encode()

class Server(TCPServer):
    uids = ()
    def privilegedStartService(self):
        Who.uids = (os.geteuid(),)
        TCPServer.privilegedStartService(self)
    def startService(self):
        Who.uids += (os.geteuid(),)
        TCPServer.startService(self)

@implementer(IServiceMaker, IPlugin)
class Maker:
    tapname = "privileged-test"
    description = "binds while it is root"
    options = _Options
    def makeService(self, options):
        return Server(82, Site(Who()), interface=%(host)r)

maker = Maker()
"""


async def page(connect: Connect) -> bytes:
    """
    Who serves.
    """
    return await inThread(httpBody, connect, "/pid.rpy")


def privilegedPorts() -> bool:
    """
    Whether only root may bind port 82 here, and we are root.
    """
    try:
        first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    except OSError:
        first = "1024"
    return os.geteuid() == 0 and int(first) > 83


@skipUnless(privilegedPorts(), "needs root, and ports that are root's")
class Shedding(ClusterTestCase):
    """
    Programs that bind as root and serve as somebody else.
    """

    async def test_tac(self) -> None:
        """
        A C{.tac} with uid and gid serves a privileged port from processes
        that are nobody's; what nobody may not open is refused as it is when
        the program runs alone.
        """
        private = self.directory / "private"
        private.mkdir(0o700)
        facts = {
            "host": HOST,
            "path": str(private / "socket"),
            "uid": NOBODY.pw_uid,
            "gid": NOBODY.pw_gid,
        }
        tac = self.program(SHEDDING % facts, "shedding.tac")
        os.chmod(self.directory, 0o755)
        words = ["-n", "-y", tac, "--pidfile=", "--logfile=-"]
        alone = self.execute([sys.executable, "-c", TWISTD, *words])
        await alone.waitFor("Starting factory")
        paths = ("/port", "/path", "/cluster")
        expected = {path: await get((HOST, 82), path) for path in paths}
        self.assertEqual(expected["/cluster"], expected["/port"])
        self.assertEqual(
            expected["/port"],
            f"CannotListenError: Couldn't listen on {HOST}:83: "
            "[Errno 13] Permission denied.".encode(),
        )
        await alone.end()
        watcher = await self.serving(tac)
        uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
        answers = await fromEach(watcher, lambda: get((HOST, 82)))
        self.assertEqual(
            answers,
            {pid: f"{pid} {(uid,) * 3} {(gid,) * 3}".encode() for pid in answers},
        )
        for path in paths:
            refused = await fromEach(watcher, partial(get, (HOST, 82), path))
            self.assertEqual(set(refused.values()), {expected[path]})
        twice = await fromEach(watcher, lambda: get((HOST, 82), "/again"))
        self.assertIn(b"[Errno 98] Address already in use", set(twice.values()).pop())
        self.assertEqual(watcher.addresses, [f"tcp:{HOST}:82"])
        self.assertEqual(os.geteuid(), 0)
        await watcher.restart().addTimeout(60, reactor)
        again = await fromEach(watcher, lambda: get((HOST, 82)))
        self.assertFalse(set(again) & set(answers))

    async def test_plugin(self) -> None:
        """
        A plugin's C{privilegedStartService} runs as root, the rest as the user
        that C{--uid} names.
        """
        plugins = self.directory / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        source = PRIVILEGED % {"host": HOST}
        (plugins / "privileged_test_plugin.py").write_text(source)
        os.chmod(self.directory, 0o755)
        setEnvironment(self, "PYTHONPATH", str(self.directory))
        watcher = await self.serving(
            "privileged-test", uid=NOBODY.pw_uid, gid=NOBODY.pw_gid
        )
        answers = await fromEach(watcher, lambda: get((HOST, 82)))
        uid = NOBODY.pw_uid
        self.assertEqual(
            answers, {pid: f"{pid} {(0, uid)} {uid}".encode() for pid in answers}
        )


class Activation(ClusterTestCase):
    """
    Sockets from a service manager.
    """

    async def test_systemd(self) -> None:
        """
        C{systemd:} finds, in each worker, the socket that was passed to the
        watcher, and it stays open when the cluster has stopped.
        """
        (self.directory / "pid.rpy").write_text(PID_SCRIPT)
        program = (
            "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=one:two exec "
            f"{sys.executable} -m twisted_cluster.cli run -w 2 web "
            "--listen=systemd:domain=INET:index=0 "
            "--listen=systemd:domain=INET:name=two "
            f"--path={self.directory}"
        )
        with socket.socket() as one, socket.socket() as two:
            for each in (one, two):
                each.bind(("127.0.0.1", 0))
                each.listen(100)
            command = self.execute(
                ["/bin/sh", "-c", program],
                environment=environment({"PYTHONPATH": str(ROOT)}),
                childFDs={0: "w", 1: "r", 2: "r", 3: one.fileno(), 4: two.fileno()},
            )
            await command.waitFor("2 workers serve")
            pids = []
            for each in (one, two):
                connect = toTCP(each.getsockname()[1])
                pids.append(await answersOf(partial(page, connect), 2))
            self.assertEqual(pids[0], pids[1])
            command.signal(signal.SIGTERM)
            self.assertEqual(await command.whenEnded(), 0, command.text)
            for each in (one, two):
                toTCP(each.getsockname()[1])().close()
