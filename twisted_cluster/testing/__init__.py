"""
Doubles for tests: of a reactor that runs when it is told to, with descriptors
and processes; and of the watcher, for programs that call C{cluster}.
"""

from twisted_cluster.testing.process import PlayedProcess
from twisted_cluster.testing.reactor import DescriptorReactor
from twisted_cluster.testing.watcher import PlayedWatcher

__all__ = ["DescriptorReactor", "PlayedProcess", "PlayedWatcher"]
