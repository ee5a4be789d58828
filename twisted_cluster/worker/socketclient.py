"""
The worker's end of its server-socket channel: asks and waits for the answer.

It blocks, since C{reactor.listenTCP()} returns a bound port.  A question that
was not answered in time leaves the channel unusable: its answer might come
after all and be taken for another's.  So does a program that closes the
descriptor of the channel, as daemons close all that they did not open: what has
the number afterwards is the program's, and is neither written to nor closed.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import threading
import time
from contextlib import closing
from typing import Any, Final, Optional

from twisted.internet.interfaces import ITransport
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.errors import ProtocolError
from twisted_cluster.sockets.addresses import (
    Address,
    Own,
    Refused,
    Shared,
    SocketRequest,
    Verdict,
)
from twisted_cluster.sockets.servers.commands import (
    ReleaseSocket,
    RequestSocket,
    addressValues,
    questionValues,
)
from twisted_cluster.sockets.wire.ancillary import receive

_log = Logger("twisted_cluster")


_READ: Final = 65536
_REQUEST: Final[Any] = RequestSocket
_RELEASE: Final[Any] = ReleaseSocket


@implementer(amp.IBoxReceiver)
class _Boxes:
    """
    Collects the boxes that were received.
    """

    def __init__(self) -> None:
        self.boxes: list[amp.AmpBox] = []

    def startReceivingBoxes(self, boxSender: amp.IBoxSender) -> None:
        pass

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        self.boxes.append(box)

    def stopReceivingBoxes(self, reason: Failure) -> None:
        pass


@implementer(ITransport)
class _Outgoing:
    """
    What the AMP classes take for a transport: collects the descriptors that go
    with the next question.
    """

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def sendFileDescriptor(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)

    def write(self, data: bytes) -> None:
        raise ProtocolError("nothing is written unasked")

    def writeSequence(self, data: Any) -> None:
        self.write(b"")

    def loseConnection(self) -> None:
        raise ProtocolError("what the watcher said is no AMP")

    def getPeer(self) -> Any:
        return None

    def getHost(self) -> Any:
        return None


class SocketClient:
    """
    Asks the watcher for listening sockets.  May be used from any thread.

    @ivar indices: how many sockets for port 0 were shared, by kind and host.
    @ivar opened: whether the program has opened a server yet.
    """

    def __init__(self, fd: int, timeout: float) -> None:
        """
        @param fd: the descriptor of the channel, which this object owns.
        @param timeout: seconds to wait for an answer: longer than any pause of
            the watcher.
        """
        self.indices: dict[tuple[str, str], int] = {}
        self.opened = False
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)
        self._file = _fileOf(fd)
        self._timeout = timeout
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._asked = 0
        self._broken: Optional[str] = None
        self._quiet = False
        self._told = False
        self._boxes = _Boxes()
        self._outgoing = _Outgoing()
        self._wire: Any = amp.BinaryBoxProtocol(self._boxes)
        self._wire.makeConnection(self._outgoing)

    def request(self, request: SocketRequest, skt: socket.socket) -> Verdict:
        """
        Ask for a socket.

        @param skt: an unbound socket with the options that the program wants.
            It stays the caller's.
        @return: in L{Shared}, the socket is the caller's.  In a process that a
            worker forked, L{Own}: the channel is its parent's.
        @raise OSError: with an errno: C{EMFILE} when this process has too many
            open files to take a socket, and nothing was asked; C{ETIMEDOUT}
            when no answer came in time; C{ECONNRESET} when the watcher is gone
            or closed the channel, or the program did, and for every question
            after one of these.
        """
        if os.getpid() != self._pid:
            return Own()
        try:
            return self._request(request, skt)
        finally:
            self._tell()

    def _request(self, request: SocketRequest, skt: socket.socket) -> Verdict:
        address = request.wanted.address
        with self._lock, closing(skt.dup()) as spare:
            self._asked += 1
            tag = b"%x" % self._asked
            question = questionValues(request, skt.fileno())
            box = _REQUEST.makeArguments(question, self._wire)
            box[amp.COMMAND] = _REQUEST.commandName
            box[amp.ASK] = tag
            deadline = time.monotonic() + self._timeout
            self._send(box, deadline)
            return self._answer(tag, address, deadline, spare)

    def release(self, address: Address) -> None:
        """
        Tell that this process no longer listens on a shared address.  Never
        raises: a watcher that is gone needs not be told.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._quiet or self._broken is not None:
                return
            box = _RELEASE.makeArguments(addressValues(address), self._wire)
            box[amp.COMMAND] = _RELEASE.commandName
            try:
                self._send(box, time.monotonic() + self._timeout)
            except OSError:
                pass
        self._tell()

    def quiet(self) -> None:
        """
        Release nothing any more: the whole worker ends, and what it listened
        on is to stay open for its replacement.
        """
        self._quiet = True

    def close(self) -> None:
        """
        Close the channel.
        """
        with self._lock:
            self._told = True
            self._break("the channel was closed")

    @property
    def broken(self) -> bool:
        """
        Whether nothing can be asked any more.
        """
        return self._broken is not None

    def _break(self, why: str) -> None:
        if self._broken is not None:
            return
        self._broken = why
        if _fileOf(self._socket.fileno()) == self._file:
            self._socket.close()
        else:
            self._socket.detach()

    def _tell(self) -> None:
        with self._lock:
            if self._broken is None or self._told or self._quiet:
                return
            self._told = True
        _log.error(
            "This worker can get no more sockets from the watcher: {why}.  What it "
            "listens on stays; what it opens from now on fails if it is the "
            "cluster's, and is this worker's own if not.  To have it replaced, send "
            "it TERM, or the watcher HUP.",
            why=self._broken,
        )

    def _failed(self, number: int, why: str) -> OSError:
        self._break(why)
        return OSError(number, f"{os.strerror(number)}: {why}")

    def _left(self, deadline: float) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._late()
        return left

    def _late(self) -> OSError:
        return self._failed(
            errno.ETIMEDOUT,
            f"the watcher did not answer within {self._timeout:g} seconds",
        )

    def _send(self, box: amp.AmpBox, deadline: float) -> None:
        descriptors, self._outgoing.descriptors = self._outgoing.descriptors, []
        if _fileOf(self._socket.fileno()) != self._file:
            self._break(
                "the program closed its descriptor, which was not the program's own"
            )
        if self._broken is not None:
            raise OSError(
                errno.ECONNRESET, f"{os.strerror(errno.ECONNRESET)}: {self._broken}"
            )
        left = memoryview(box.serialize())
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            while left:
                self._socket.settimeout(self._left(deadline))
                left = left[self._socket.sendmsg([left], rights, socket.MSG_NOSIGNAL) :]
                rights = []
        except TimeoutError:
            raise self._late() from None
        except OSError as error:
            if self._broken is not None:
                raise
            raise self._failed(
                errno.ECONNRESET, f"the watcher is gone ({error})"
            ) from None

    def _answer(
        self, tag: bytes, address: Address, deadline: float, spare: socket.socket
    ) -> Verdict:
        """
        @param spare: takes the place of the descriptor that may come, until the
            answer is here.
        """
        received: list[int] = []
        try:
            self._await(deadline)
            spare.close()
            while not self._boxes.boxes:
                self._receive(received, deadline)
            box = self._boxes.boxes.pop(0)
            if self._boxes.boxes or box.get(amp.ANSWER) != tag:
                raise ProtocolError("an answer to another question")
            values = _REQUEST.parseResponse(box, self._wire)
            return self._verdict(values, address, received)
        except OSError:
            raise
        except Exception as error:
            raise self._failed(
                errno.ECONNRESET, f"the watcher's answer is wrong ({error!r})"
            ) from error
        finally:
            for descriptor in received:
                os.close(descriptor)

    def _verdict(
        self, values: dict[str, Any], address: Address, received: list[int]
    ) -> Verdict:
        if values["verdict"] == b"own":
            return Own()
        if values["verdict"] == b"refused":
            return Refused(values["errno"], values["message"])
        if values["verdict"] != b"shared":
            raise ProtocolError(f"an unknown verdict {values['verdict']!r}")
        descriptor = values["socket"]
        if descriptor is None:
            raise ProtocolError("the socket is missing")
        skt = socket.socket(fileno=descriptor)
        received.remove(descriptor)
        skt.setblocking(False)
        # A UNIX socket was perhaps not bound by its own path.
        bound = address if address.kind == "unix" else Address.ofSocket(skt)
        return Shared(skt, bound, values["listener"], values["accepts"])

    def _await(self, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(self._left(deadline) * 1000):
            raise self._late()

    def _receive(self, received: list[int], deadline: float) -> None:
        self._socket.settimeout(self._left(deadline))
        try:
            data, descriptors = receive(self._socket, _READ)
        except TimeoutError:
            raise self._late() from None
        except ProtocolError as error:
            raise self._failed(errno.EMFILE, str(error)) from None
        except OSError as error:
            raise self._failed(
                errno.ECONNRESET, f"the watcher is gone ({error})"
            ) from None
        received.extend(descriptors)
        for descriptor in descriptors:
            self._wire.fileDescriptorReceived(descriptor)
        if not data:
            raise self._failed(
                errno.ECONNRESET, "the watcher is gone, or closed the channel"
            )
        self._wire.dataReceived(data)


def _fileOf(descriptor: int) -> Optional[tuple[int, int]]:
    """
    Find what is open under a descriptor's number.
    """
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino
