"""
Whether the kernel killed a worker for want of memory.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor.killcounts import KillCounts

V2_MOUNT = "30 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n"
V1_MOUNT = "32 31 0:29 / /cg rw - cgroup cgroup rw,memory\n"
LIKELY = (
    "most likely by the kernel for want of memory: it killed a process of this "
    "control group at that time"
)
PERHAPS_HERE = (
    "perhaps by the kernel for want of memory: it killed a process of this machine "
    "at that time"
)
PERHAPS_ELSEWHERE = (
    "perhaps by the kernel for want of memory: it killed a process of another "
    "control group at that time"
)


class KillCountsTests(SynchronousTestCase):
    """
    L{KillCounts}.
    """

    def setUp(self) -> None:
        """
        Make an empty root.
        """
        self.root = Path(self.mktemp())
        self.counts = KillCounts(str(self.root))

    def write(self, name: str, text: str) -> None:
        """
        Write one of its files.
        """
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def machine(self, count: int) -> None:
        """
        Have the machine's count so many.
        """
        self.write("proc/vmstat", f"pgfault 99\noom_kill {count}\nswap_ra 0\n")

    def group(self, count: int) -> None:
        """
        Have the count of our group, of version 2, so many.
        """
        self.write("proc/self/cgroup", "0::/app\n")
        self.write("proc/self/mountinfo", V2_MOUNT)
        self.write(
            "cg/app/memory.events",
            f"low 0\noom 9\noom_kill {count}\noom_group_kill 0\n",
        )

    def test_likely(self) -> None:
        """
        A kill that was counted in our control group explains the death most
        likely, whatever else was.
        """
        self.group(3)
        self.machine(5)
        self.counts.look()
        self.group(4)
        self.machine(6)
        self.assertEqual(LIKELY, self.counts.hint())

    def test_version1(self) -> None:
        """
        Version 1 of control groups counts as well.
        """
        self.write("proc/self/cgroup", "4:memory:/app\n0::/\n")
        self.write("proc/self/mountinfo", V1_MOUNT)
        file = "cg/app/memory.oom_control"
        self.write(file, "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
        self.counts.look()
        self.assertEqual("", self.counts.hint())
        self.write(file, "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
        self.assertEqual(LIKELY, self.counts.hint())

    def test_perhaps(self) -> None:
        """
        A kill that only the machine counted may explain it, and it is said whether
        our group is known to have had none.
        """
        self.machine(5)
        self.counts.look()
        self.machine(6)
        self.assertEqual(PERHAPS_HERE, self.counts.hint())
        other = KillCounts(str(self.root))
        self.group(3)
        other.look()
        self.machine(7)
        self.assertEqual(PERHAPS_ELSEWHERE, other.hint())

    def test_otherGroup(self) -> None:
        """
        Another group's count, as seen from inside a container, is not taken for
        ours.
        """
        self.machine(0)
        self.group(0)
        self.write("proc/self/cgroup", "0::/../app\n")
        self.write("cg/memory.events", "oom_kill 0\n")
        self.counts.look()
        self.write("cg/memory.events", "oom_kill 1\n")
        self.assertEqual("", self.counts.hint())

    def test_unmoved(self) -> None:
        """
        Where no count moved, nothing is said.
        """
        self.machine(5)
        self.group(3)
        self.counts.look()
        self.assertEqual("", self.counts.hint())

    def test_once(self) -> None:
        """
        A kill explains one death, two explain two, also when there is a look in
        between.
        """
        self.group(0)
        self.machine(0)
        self.counts.look()
        self.group(2)
        self.machine(2)
        said = [self.counts.hint()]
        self.counts.look()
        said += [self.counts.hint(), self.counts.hint()]
        self.assertEqual([LIKELY, LIKELY, ""], said)
        self.counts.look()
        self.assertEqual("", self.counts.hint())

    def test_lookedAtBefore(self) -> None:
        """
        A kill explains a death although there was a look between the two, and the
        next kill explains the next.
        """
        self.group(0)
        self.counts.look()
        for count in (1, 2):
            self.group(count)
            self.counts.look()
            self.assertEqual([LIKELY, ""], [self.counts.hint(), self.counts.hint()])

    def test_forgotten(self) -> None:
        """
        A kill that was long ago, in a group or on the machine, explains nothing.
        """
        self.group(0)
        self.machine(0)
        self.counts.look()
        self.group(1)
        self.machine(1)
        self.counts.look()
        self.counts.look()
        self.assertEqual("", self.counts.hint())

    def test_before(self) -> None:
        """
        What was counted before the first look explains nothing, and without a look
        nothing is known.
        """
        self.group(7)
        self.assertEqual("", self.counts.hint())
        self.counts.look()
        self.assertEqual("", self.counts.hint())

    def test_groupAlone(self) -> None:
        """
        A kernel that does not count for the machine is no obstacle.
        """
        self.group(0)
        self.counts.look()
        self.group(1)
        self.counts.look()
        self.assertEqual(LIKELY, self.counts.hint())

    def test_nothingUseful(self) -> None:
        """
        Counts that cannot be read, or not any more, say nothing.
        """
        for text in ("", "oom_kill\n", "oom_kill many\n", "oom_kill 1 2\n", "\0"):
            self.write("proc/vmstat", text)
            counts = KillCounts(str(self.root))
            counts.look()
            self.assertEqual("", counts.hint(), text)
        self.machine(5)
        self.counts.look()
        self.write("proc/vmstat", "")
        self.counts.look()
        self.assertEqual("", self.counts.hint())

    def test_here(self) -> None:
        """
        On this machine, whatever it is, looking works.
        """
        counts = KillCounts()
        counts.look()
        counts.look()
        self.assertIsInstance(counts.hint(), str)
