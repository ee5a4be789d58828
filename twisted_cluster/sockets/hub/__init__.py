"""
Where processes meet that were started by something else.
"""
