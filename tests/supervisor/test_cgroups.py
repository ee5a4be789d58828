"""
Where our control groups lie, laid out in a directory.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor.cgroups import ControlGroup, controlGroups, linesOf

V2_MOUNT = r"30 23 0:26 {top} /sys/fs/cg\0402 rw shared:9 - cgroup2 cgroup2 rw"
V1_MOUNT = "32 31 0:29 {top} /sys/fs/mem rw - cgroup cgroup rw,memory,hugetlb"
OTHER_MOUNT = "33 31 0:30 / /sys/fs/cpu rw - cgroup cgroup rw,cpu"


class ControlGroupTests(SynchronousTestCase):
    """
    L{controlGroups}.
    """

    def found(self, groups: str, *mounts: str) -> list[ControlGroup]:
        """
        Find what has memory with these groups and mounts, by paths from the root.
        """
        root = Path(self.mktemp())
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/cgroup").write_text(groups)
        (root / "proc/self/mountinfo").write_text("\n".join(mounts) + "\n")
        return [
            ControlGroup(
                group.version,
                Path("/") / group.directory.relative_to(root),
                Path("/") / group.point.relative_to(root),
                group.isOurs,
            )
            for group in controlGroups(root, "memory")
        ]

    def test_versions(self) -> None:
        """
        Where both versions are mounted, both are found, and of version 1 the
        hierarchy of the controller alone.
        """
        found = self.found(
            "4:hugetlb,memory:/m\n3:cpu:/c\n0::/u/v\n",
            V2_MOUNT.format(top="/"),
            V1_MOUNT.format(top="/"),
            OTHER_MOUNT,
        )
        two, one = Path("/sys/fs/cg 2"), Path("/sys/fs/mem")
        self.assertEqual(
            [
                ControlGroup(2, two / "u/v", two, True),
                ControlGroup(1, one / "m", one, True),
            ],
            found,
        )

    def test_top(self) -> None:
        """
        A mount point may show a group further down as its top.
        """
        point = Path("/sys/fs/mem")
        for group, directory in [("/docker/a", point), ("/docker/a/b", point / "b")]:
            self.assertEqual(
                [ControlGroup(1, directory, point, True)],
                self.found(f"4:memory:{group}\n", V1_MOUNT.format(top="/docker/a")),
            )

    def test_outside(self) -> None:
        """
        Of a group outside of what is mounted, the nearest is the mount point, and
        it is said that this is not ours.
        """
        point = Path("/sys/fs/cg 2")
        for group, top in [("/../other", "/"), ("/a", "/a/b")]:
            self.assertEqual(
                [ControlGroup(2, point, point, False)],
                self.found(f"0::{group}\n", V2_MOUNT.format(top=top)),
            )

    def test_upwards(self) -> None:
        """
        From a group, the way up ends at the mount point.
        """
        point = Path("/sys/fs/cgroup")
        group = ControlGroup(2, point / "a/b", point, True)
        self.assertEqual([point / "a/b", point / "a", point], list(group.upwards()))
        top = ControlGroup(2, point, point, True)
        self.assertEqual([point], list(top.upwards()))

    def test_nothingUseful(self) -> None:
        """
        What cannot be read or understood is not there.
        """
        self.assertEqual([], list(controlGroups(Path(self.mktemp()), "memory")))
        self.assertEqual([], self.found("x\n\n", "y - z", "- cgroup2 cgroup2 rw"))
        self.assertEqual([], linesOf(Path(self.mktemp())))
