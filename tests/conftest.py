"""
What pytest must do so that the tests find what trial gives them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def workingDirectory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """
    Run the tests in a directory of their own, as trial does in its
    C{_trial_temp}: C{TestCase.mktemp} makes its files in the working
    directory, which would be the checkout.
    """
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("pytest"))
    try:
        yield
    finally:
        os.chdir(before)
