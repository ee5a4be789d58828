"""
What one worker takes, as the watcher sees it.
"""

from __future__ import annotations

import os
import socket

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import Events, descriptors
from twisted_cluster.ipc.clients import ENDED, LISTENER, UNREAD
from twisted_cluster.sockets.wire.frames import Arrival, encodeNote
from twisted_cluster.sockets.wire.handover import Handover
from twisted_cluster.supervisor import intake as intakes
from twisted_cluster.supervisor.intake import WINDOW, Intake
from twisted_cluster.testing import DescriptorReactor

HTTP, SSH = 1, 2


class Held:
    """
    A connection that is held, and what became of it.
    """

    unread = b""

    def __init__(self, ended: list[tuple[str, Held]]) -> None:
        self.socket, self._client = socket.socketpair()
        self._ended = ended

    def taken(self) -> None:
        self._ended.append(("taken", self))

    def returned(self) -> None:
        self._ended.append(("returned", self))

    def close(self) -> None:
        self.socket.close()
        self._client.close()


class IntakeTests(SynchronousTestCase):
    """
    An intake, and the worker at the other end.

    @ivar ended: what became of the connections, in order.
    @ivar changes: how often it was said that something may have changed.
    """

    def setUp(self) -> None:
        before = descriptors()
        self.events = Events()
        self.patch(intakes, "_log", Logger(observer=self.events))
        self.reactor = DescriptorReactor()
        self.ended: list[tuple[str, Held]] = []
        self.held: list[Held] = []
        self.changes = 0
        self.intake = Intake(self.reactor, 7, 3, self._changed)
        ours, theirs = socket.socketpair()
        self.channel: Handover = self.intake.connect(ours)
        self.worker = Handover(self.reactor, theirs)
        self.worker.arrived = lambda: None
        self.channel.start()
        self.worker.start()

        def end() -> None:
            self.intake.close()
            self.worker.abort()
            for each in self.held:
                each.close()
            self.assertEqual(before, descriptors())
            self.assertEqual([], self.reactor.getDelayedCalls())

        self.addCleanup(end)

    def _changed(self) -> None:
        self.changes += 1

    @property
    def connections(self) -> int:
        return self.intake.candidate.connections

    def give(self, count: int = 1, listener: int = HTTP) -> list[Held]:
        """
        Give connections to the worker, and let them arrive.
        """
        given = [Held(self.ended) for _ in range(count)]
        self.held.extend(given)
        for each in given:
            self.assertTrue(self.intake.takes(listener))
            self.intake.give(each, listener)
        self.reactor.settle()
        return given

    def take(self, count: int = 64) -> list[Arrival]:
        """
        Have the worker take them.
        """
        taken = self.worker.take(count)
        for each in taken:
            os.close(each.descriptor)
        self.reactor.settle()
        return taken

    def refuse(self, count: int = 1) -> None:
        """
        Have the worker give them back.
        """
        self.worker.giveBack(count, "no")
        self.reactor.settle()

    def note(self, count: int) -> None:
        """
        Have the worker say how many have ended.
        """
        self.worker.note(ENDED.pack(count))
        self.reactor.settle()

    def assertChanges(self, takes: bool, before: int) -> None:
        """
        What is said of the worker has changed, and that was told.
        """
        self.assertEqual(self.intake.takes(HTTP), takes)
        self.assertGreater(self.changes, before)

    def test_who(self) -> None:
        """
        Balancers see which worker it is.
        """
        candidate = self.intake.candidate
        self.assertEqual((candidate.worker, candidate.slot), (7, 3))
        self.assertEqual(self.connections, 0)

    def test_ready(self) -> None:
        """
        It takes something while it serves.
        """
        self.assertFalse(self.intake.takes(HTTP))
        self.intake.begin()
        self.assertChanges(True, 0)
        changes = self.changes
        self.intake.end()
        self.assertChanges(False, changes)

    def test_taken(self) -> None:
        """
        A connection arrives with its address's number; once it is taken, the
        watcher is told, and it counts until the worker says that it has ended.
        """
        self.intake.begin()
        first, second = [*self.give(listener=HTTP), *self.give(listener=SSH)]
        self.assertEqual(self.ended, [])
        self.assertEqual(self.connections, 2)
        data = [arrival.data for arrival in self.take()]
        self.assertEqual(data, [LISTENER.pack(HTTP), LISTENER.pack(SSH)])
        self.assertEqual(self.ended, [("taken", first), ("taken", second)])
        self.assertEqual(self.connections, 2)
        self.note(1)
        self.assertEqual(self.connections, 1)
        self.note(1)
        self.assertEqual(self.connections, 0)

    def test_window(self) -> None:
        """
        A worker that leaves too many unanswered gets no more, until it answers.
        """
        self.intake.begin()
        changes = self.changes
        self.give(WINDOW - 1)
        self.assertEqual(self.changes, changes)
        self.give()
        self.assertChanges(False, changes)
        changes = self.changes
        self.take(1)
        self.assertChanges(True, changes)
        self.assertEqual(self.connections, WINDOW)
        changes = self.changes
        self.give()
        self.assertChanges(False, changes)

    def test_late(self) -> None:
        """
        Neither does one that leaves a single one unanswered for long, until it
        answers all that are as old.
        """
        self.intake.begin()
        self.give()
        self.reactor.elapse(0.06, 0.01)
        self.give()
        changes = self.changes
        self.reactor.elapse(0.03, 0.01)
        self.assertTrue(self.intake.takes(HTTP))
        self.reactor.elapse(0.02, 0.01)
        self.assertChanges(False, changes)
        self.reactor.elapse(1.0)
        changes = self.changes
        self.take(1)
        self.assertFalse(self.intake.takes(HTTP))
        self.take(1)
        self.assertChanges(True, changes)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_lateAgain(self) -> None:
        """
        What is given after that may be late itself.
        """
        self.intake.begin()
        self.give()
        self.reactor.elapse(0.08, 0.01)
        self.give()
        self.take(1)
        self.reactor.elapse(0.08, 0.01)
        self.assertTrue(self.intake.takes(HTTP))
        changes = self.changes
        self.reactor.elapse(0.03, 0.01)
        self.assertChanges(False, changes)
        self.take(1)
        changes = self.changes
        self.give()
        self.reactor.elapse(0.2, 0.01)
        self.assertChanges(False, changes)

    def test_lateWithinMany(self) -> None:
        """
        One that was full and has answered some may yet be late with others.
        """
        self.intake.begin()
        self.give(WINDOW - 1)
        self.reactor.elapse(0.05, 0.01)
        self.give()
        self.take(WINDOW - 1)
        self.assertTrue(self.intake.takes(HTTP))
        self.reactor.elapse(0.2, 0.01)
        self.assertFalse(self.intake.takes(HTTP))

    def test_oneTimer(self) -> None:
        """
        However many it is given, one delayed call watches over them, and none when
        it has nothing.
        """
        self.intake.begin()
        for _ in range(20):
            self.give(3)
            self.take()
            self.assertLessEqual(len(self.reactor.getDelayedCalls()), 1)
            self.reactor.elapse(0.02, 0.01)
        self.assertTrue(self.intake.takes(HTTP))
        self.reactor.elapse(0.2)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """
        One that gives a connection back gets none of that address for a second;
        those of others, it still gets.
        """
        self.intake.begin()
        [held] = self.give()
        changes = self.changes
        self.refuse()
        self.assertEqual(self.ended, [("returned", held)])
        self.assertEqual(self.connections, 0)
        self.assertChanges(False, changes)
        self.assertTrue(self.intake.takes(SSH))
        self.reactor.advance(0.9)
        self.assertFalse(self.intake.takes(HTTP))
        changes = self.changes
        self.reactor.advance(0.2)
        self.assertChanges(True, changes)
        self.assertEqual(self.events.texts, ["worker 7 gave a connection back: no"])

    def test_refusedMany(self) -> None:
        """
        Many that come back are one reason to wait, said once.
        """
        self.intake.begin()
        given = self.give(3)
        self.refuse(2)
        self.refuse(1)
        self.assertEqual(self.ended, [("returned", each) for each in given])
        self.assertEqual(len(self.events), 1)
        self.reactor.elapse(0.2)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_refusedByLeaving(self) -> None:
        """
        That a worker which leaves gives everything back, nobody has to know.
        """
        self.intake.begin()
        [held] = self.give()
        self.intake.end()
        self.refuse()
        self.assertEqual(self.ended, [("returned", held)])
        self.assertEqual(self.events, [])

    def test_takenWhileLeaving(self) -> None:
        """
        What was on its way to a worker that leaves, it may still take.
        """
        self.intake.begin()
        [held] = self.give()
        self.intake.end()
        self.take()
        self.assertEqual(self.ended, [("taken", held)])

    def test_neverNegative(self) -> None:
        """
        Whatever a worker says has ended, it has at least as many connections as
        it was given and has not answered, and never fewer than none.
        """
        self.intake.begin()
        self.give(3)
        self.take(1)
        self.note(100)
        self.assertEqual(self.connections, 2)
        self.refuse(2)
        self.assertEqual(self.connections, 0)
        self.note(1)
        self.assertEqual(self.connections, 0)

    def test_garbage(self) -> None:
        """
        A note that says nothing ends the channel, and no other gets what the worker
        may have; the log says what that means, if the worker lives on.
        """
        self.intake.begin()
        [held] = self.give()
        changes = self.changes
        self.worker.note(b"hello")
        self.reactor.settle()
        self.assertEqual(self.ended, [("taken", held)])
        self.assertChanges(False, changes)
        self.reactor.elapse(10)
        [text] = self.events.texts
        self.assertIn("channel of worker 7 is closed", text)
        self.assertIn("a note that says nothing: b'hello'.  To have it", text)

    def test_halfAFrame(self) -> None:
        """
        What a worker has not taken that died within a word goes to others.
        """
        self.intake.begin()
        [held] = self.give()
        self.worker._transport.write(encodeNote(b"hello")[:-1])
        self.worker.abort()
        self.reactor.settle()
        self.assertEqual(self.ended, [("returned", held)])

    def move(self, data: bytes) -> tuple[list[object], socket.socket]:
        """
        Have the worker hand a connection over.

        @return: the answers that it gets, and the client.
        """
        answers: list[object] = []
        self.worker.answered = lambda token, why: answers.append(why)
        ours, client = socket.socketpair()
        self.worker.send(ours.fileno(), data, None)
        self.reactor.settle()
        ours.close()
        client.settimeout(10)
        self.addCleanup(client.close)
        return answers, client

    def test_moves(self) -> None:
        """
        A connection that comes from the worker is told of, with what the worker has
        read from it.
        """
        moved: list[tuple[int, socket.socket, bytes]] = []
        self.intake.refuses = lambda listener: None
        self.intake.moves = lambda *what: moved.append(what)
        answers, client = self.move(LISTENER.pack(SSH) + b"unread")
        self.assertEqual(answers, [None])
        [(listener, skt, unread)] = moved
        self.assertEqual((listener, unread), (SSH, b"unread"))
        skt.send(b"hello")
        self.assertEqual(client.recv(9), b"hello")
        skt.close()

    def test_movesNowhere(self) -> None:
        """
        It stays the worker's where it is refused.
        """
        self.intake.refuses = lambda listener: f"{listener} is full"
        answers, client = self.move(LISTENER.pack(SSH))
        self.assertEqual(answers, ["2 is full"])
        self.assertTrue(self.intake._handover)
        client.close()

    def test_movesMuch(self) -> None:
        """
        As much may come along as a worker reads at once.
        """
        moved: list[bytes] = []

        def moves(listener: int, skt: socket.socket, unread: bytes) -> None:
            skt.close()
            moved.append(unread)

        self.intake.refuses = lambda listener: None
        self.intake.moves = moves
        much = b"x" * UNREAD
        answers, _ = self.move(LISTENER.pack(SSH) + much)
        self.assertEqual((answers, moved), ([None], [much]))

    def test_movesTooMuch(self) -> None:
        """
        A worker that announces more loses its channel at once: the watcher does not
        collect it.
        """
        self.intake.begin()
        answers, client = self.move(LISTENER.pack(SSH) + b"x" * (UNREAD + 1))
        self.assertEqual(answers, [])
        self.assertEqual(client.recv(1), b"")
        self.assertFalse(self.intake.takes(HTTP))

    def test_movesNonsense(self) -> None:
        """
        One that does not say which address it belongs to ends the channel.
        """
        self.intake.begin()
        answers, client = self.move(b"huh")
        self.assertEqual(answers, [])
        self.assertEqual(client.recv(1), b"")
        self.assertFalse(self.intake.takes(HTTP))

    def test_closedByWorker(self) -> None:
        """
        A worker that closes the channel gets no more, and if it lives on, the
        log says so, once.
        """
        self.intake.begin()
        changes = self.changes
        self.worker.abort()
        self.reactor.settle()
        self.assertChanges(False, changes)
        self.reactor.elapse(4)
        self.assertEqual(self.events, [])
        self.reactor.elapse(100, 1.0)
        [text] = self.events.texts
        self.assertIn("from the watcher: the worker closed it.  To", text)

    def test_closedBeforeItServes(self) -> None:
        """
        So does it for one that closes the channel before it serves.
        """
        self.worker.abort()
        self.reactor.elapse(10)
        self.assertEqual(self.events, [])
        self.intake.begin()
        self.assertFalse(self.intake.takes(HTTP))
        self.reactor.elapse(10)
        self.assertEqual(len(self.events), 1)

    def test_dies(self) -> None:
        """
        What a worker that dies has not answered comes back, each once and in
        order; what it has answered does not.  Nothing is said of its channel.
        """
        self.intake.begin()
        given = self.give(5)
        [arrival] = self.worker.take(1)
        os.close(arrival.descriptor)
        self.worker.giveBack(1, "no")
        self.worker.abort()
        self.reactor.settle()
        self.intake.close()
        self.reactor.elapse(10)
        self.assertEqual(
            self.ended,
            [("taken", given[0]), *(("returned", each) for each in given[1:])],
        )
        self.assertEqual(self.connections, 1)
        self.assertEqual(self.events.texts[1:], [])

    def test_close(self) -> None:
        """
        Closing it gives back what is unanswered, also what has not left yet.
        """
        self.intake.begin()
        given = self.give(2)
        self.held.append(Held(self.ended))
        self.intake.give(self.held[-1], HTTP)
        self.intake.close()
        self.assertEqual(
            self.ended, [("returned", each) for each in [*given, self.held[-1]]]
        )
        self.assertFalse(self.intake.takes(HTTP))
        self.assertEqual(self.connections, 0)

    def test_closeWhileResting(self) -> None:
        """
        It may rest meanwhile.
        """
        self.intake.begin()
        self.give()
        self.refuse()
        self.intake.close()
        self.reactor.elapse(5)
        self.assertFalse(self.intake.takes(HTTP))

    def test_answersBeforeTheEnd(self) -> None:
        """
        What the worker had said before the watcher closed the channel counts.
        """
        self.intake.begin()
        [held] = self.give()
        for each in self.worker.take():
            os.close(each.descriptor)
        self.intake.close()
        self.assertEqual(self.ended, [("taken", held)])

    def test_neverStarted(self) -> None:
        """
        A channel whose worker could not be started is closed without a word.
        """
        ours, theirs = socket.socketpair()
        intake = Intake(self.reactor, 8, 4, self._changed)
        intake.connect(ours).abort()
        intake.close()
        self.assertEqual(theirs.recv(1), b"")
        theirs.close()
        self.assertEqual(self.events, [])
