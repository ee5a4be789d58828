"""
How many processors there are for us, with control groups of either version
laid out in a directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor.cpus import availableCPUs

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
V1_MOUNT = (
    "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)


class AvailableCPUsTests(SynchronousTestCase):
    """
    L{availableCPUs}.
    """

    def count(self, files: Mapping[str, str], affinity: int = 8) -> int:
        """
        Count with these files, by their paths from the root.
        """
        root = Path(self.mktemp())
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return availableCPUs(str(root), lambda: affinity)

    def version2(self, group: str, files: Mapping[str, str]) -> int:
        """
        Count in a group of version 2, with these C{cpu.max} files.
        """
        return self.count(
            {
                "proc/self/cgroup": f"0::{group}\n",
                "proc/self/mountinfo": V2_MOUNT,
                **{
                    f"sys/fs/cgroup/{name}/cpu.max": content
                    for name, content in files.items()
                },
            }
        )

    def version1(self, group: str, top: str, files: Mapping[str, str]) -> int:
        """
        Count in a group of version 1.
        """
        return self.count(
            {
                "proc/self/cgroup": f"5:memory:/m\n4:cpu,cpuacct:{group}\n0::/\n",
                "proc/self/mountinfo": V1_MOUNT.format(top=top),
                **{
                    f"sys/fs/cgroup/cpu,cpuacct/{name}": content
                    for name, content in files.items()
                },
            }
        )

    def test_noControlGroups(self) -> None:
        """
        Without control groups, the affinity alone counts.
        """
        self.assertEqual(self.count({}), 8)

    def test_here(self) -> None:
        """
        On this machine, whatever it is, there is at least one.
        """
        self.assertGreaterEqual(availableCPUs(), 1)

    def test_version2(self) -> None:
        """
        A quota of version 2 limits the number.
        """
        self.assertEqual(self.version2("/app", {"app": "200000 100000\n"}), 2)

    def test_version2Parent(self) -> None:
        """
        The least quota of the group and of those above it counts.
        """
        quotas = {"a/b/c": "max 100000\n", "a/b": "300000 100000\n", "a": "700000 1\n"}
        self.assertEqual(self.version2("/a/b/c", quotas), 3)

    def test_version2Namespace(self) -> None:
        """
        In a container, our group appears as the root, with its quota there.
        """
        self.assertEqual(self.version2("/", {".": "250000 100000\n"}), 3)

    def test_version2OutsideNamespace(self) -> None:
        """
        A group outside of what is mounted leaves the mounted one to count.
        """
        self.assertEqual(self.version2("/../other", {".": "100000 100000\n"}), 1)

    def test_roundedUp(self) -> None:
        """
        Half a processor more is worth a worker, and there is always one.
        """
        self.assertEqual(self.version2("/a", {"a": "150000 100000\n"}), 2)
        self.assertEqual(self.version2("/a", {"a": "1000 100000\n"}), 1)

    def test_moreThanThereAre(self) -> None:
        """
        A quota over the affinity adds nothing.
        """
        self.assertEqual(self.version2("/a", {"a": "6400000 100000\n"}), 8)

    def test_version1(self) -> None:
        """
        A quota of version 1 limits the number.
        """
        files = {
            "app/cpu.cfs_quota_us": "400000\n",
            "app/cpu.cfs_period_us": "100000\n",
        }
        self.assertEqual(self.version1("/app", "/", files), 4)

    def test_version1Container(self) -> None:
        """
        In a container without a namespace of its own, our group is the top of
        what is mounted.
        """
        files = {"cpu.cfs_quota_us": "150000\n", "cpu.cfs_period_us": "50000\n"}
        self.assertEqual(self.version1("/docker/abc", "/docker/abc", files), 3)

    def test_version1Unlimited(self) -> None:
        """
        A quota of -1 is none.
        """
        files = {"app/cpu.cfs_quota_us": "-1\n", "app/cpu.cfs_period_us": "100000\n"}
        self.assertEqual(self.version1("/app", "/", files), 8)

    def test_escapedMountPoint(self) -> None:
        """
        A mount point with a blank in its name is found.
        """
        files = {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2_MOUNT.replace("/sys/fs/cgroup", r"/my\040groups"),
            "my groups/cpu.max": "200000 100000\n",
        }
        self.assertEqual(self.count(files), 2)

    def test_garbage(self) -> None:
        """
        What cannot be understood limits nothing.
        """
        for content in ("", "many", "max", "1 0", "-5 10", "1 2 3", "\x00"):
            self.assertEqual(self.version2("/a", {"a": content}), 8, content)
        self.assertEqual(
            self.count({"proc/self/cgroup": "x\n", "proc/self/mountinfo": "y - z\n"}), 8
        )
