"""
The tests, in the shape of the package that they test; those that run the real
thing end to end are in L{tests.integration}.

All run under C{trial tests} and under C{pytest}.
"""
