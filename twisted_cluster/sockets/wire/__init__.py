"""
Bytes and descriptors between two processes, kept together and accounted for.
"""
