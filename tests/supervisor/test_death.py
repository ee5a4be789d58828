"""
How a death is told.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Optional

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor.death import Exit, explain, foundAddressTaken

KILLED = Exit(None, signal.SIGKILL)
HINT = "most likely by the kernel"


class ExplainTests(SynchronousTestCase):
    """
    L{explain}.
    """

    def explained(
        self,
        how: Exit,
        *,
        killedFor: Optional[str] = None,
        unasked: bool = True,
        wasReady: bool = True,
        lastLines: Sequence[str] = (),
        whoKilled: Callable[[], str] = lambda: HINT,
    ) -> str:
        """
        Explain the end of a worker that served and was told nothing, if nothing
        else is said.
        """
        return explain(
            how,
            killedFor=killedFor,
            unasked=unasked,
            wasReady=wasReady,
            lastLines=lastLines,
            whoKilled=whoKilled,
        )

    def test_ends(self) -> None:
        """
        A status and a signal are named, known or not.
        """
        for how, text in [
            (Exit(1, None), "exited with status 1"),
            (Exit(None, signal.SIGSEGV), "was ended by SIGSEGV"),
            (Exit(None, 200), "was ended by signal 200"),
        ]:
            self.assertEqual(text, self.explained(how))

    def test_bySelf(self) -> None:
        """
        A program that ends with 0 and was not told to ended by itself.
        """
        clean = Exit(0, None)
        self.assertIn("ended by itself", self.explained(clean))
        self.assertIn("background", self.explained(clean, wasReady=False))
        for wasReady in (True, False):
            self.assertEqual(
                "exited with status 0",
                self.explained(clean, unasked=False, wasReady=wasReady),
            )

    def test_lastWords(self) -> None:
        """
        Of a worker that was never ready, its last words are told.
        """
        words = ["Traceback", "  Boom"]
        self.assertEqual(
            "exited with status 1 before it was ready; its last words:\n"
            "Traceback\n  Boom",
            self.explained(Exit(1, None), wasReady=False, lastLines=words),
        )
        self.assertEqual(
            "exited with status 1 before it was ready",
            self.explained(Exit(1, None), wasReady=False),
        )

    def test_whoKilled(self) -> None:
        """
        Of a SIGKILL, whoever may have sent it is told, whether the worker served,
        was starting, or was leaving.
        """
        self.assertEqual(
            "was ended by SIGKILL, most likely by the kernel", self.explained(KILLED)
        )
        self.assertEqual(
            "was ended by SIGKILL, most likely by the kernel",
            self.explained(KILLED, unasked=False),
        )
        self.assertEqual(
            "was ended by SIGKILL before it was ready, most likely by the kernel; its "
            "last words:\nBoom",
            self.explained(KILLED, wasReady=False, lastLines=["Boom"]),
        )

    def test_nobodyKnown(self) -> None:
        """
        When nobody is known to have sent it, nobody is told.
        """
        self.assertEqual(
            "was ended by SIGKILL", self.explained(KILLED, whoKilled=lambda: "")
        )

    def test_killedByWatcher(self) -> None:
        """
        What the watcher did itself, and what was no SIGKILL, is not asked about.
        """
        self.assertEqual(
            "was ended by SIGKILL: it hung",
            self.explained(KILLED, killedFor="it hung", whoKilled=self.fail),
        )
        for how in (Exit(None, signal.SIGTERM), Exit(9, None), Exit(0, None)):
            for wasReady in (True, False):
                self.explained(how, wasReady=wasReady, whoKilled=self.fail)


class AddressTakenTests(SynchronousTestCase):
    """
    L{foundAddressTaken}.
    """

    def test_taken(self) -> None:
        """
        An address that is taken counts, unless the watcher had refused it.
        """
        own = "exited with status 1\nOSError: [Errno 98] Address already in use"
        asked = "CannotListenError: Couldn't listen on any:80: [Errno 98] in use."
        self.assertTrue(foundAddressTaken(own))
        self.assertTrue(foundAddressTaken(f"{asked}\n{own}"))
        self.assertFalse(foundAddressTaken(asked))
        self.assertFalse(foundAddressTaken("exited with status 98"))
