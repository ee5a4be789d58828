"""
What the watcher and a worker say to each other.

This is the only ground on which the two sides meet: both import from here,
and neither imports the other.
"""
