"""
Client connections, moved from one process to another.
"""
