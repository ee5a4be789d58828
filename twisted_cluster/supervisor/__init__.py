"""
The watcher's side: spawns workers, binds sockets, hears signals, prints logs.
"""
