"""
Sockets between processes; nothing here knows of clusters.
"""
