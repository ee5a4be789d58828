"""
Figures of another kind than rates, as a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs


def align(rows: Sequence[Sequence[str]]) -> str:
    """
    Lines of text, the cells of each column below each other: the first to the
    left, the others to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        for cells in rows
    )


@attrs.frozen
class Table:
    """
    What a benchmark found.

    @ivar head: the names of the columns, the first of which is the title.
    @ivar figures: the same for programs, as JSON can tell it.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: Sequence[dict[str, Any]]

    @property
    def title(self) -> str:
        """
        What it is about.
        """
        return self.head[0]
