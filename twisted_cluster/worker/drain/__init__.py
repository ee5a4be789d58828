"""
How a worker lets its connections end before it leaves.
"""
