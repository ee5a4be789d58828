"""
Draws what the simulation found: a column for each way of balancing, above the
open connections, below the accepted ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

if TYPE_CHECKING:
    from benchmarks.simulation import Sample, Summary

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""
Okabe and Ito's, which the colour-blind can tell apart.
"""

TICKS: Final = (0.25, 0.5, 1, 2, 4, 8, 16, 32)
LOWEST, HIGHEST = 0.15, 45.0


def draw(
    title: str, courses: Mapping[str, tuple[Sequence[Sample], Summary]], path: str
) -> None:
    """
    Draw, and write to a file of the kind that its name says.

    @param courses: what was found, by the names of the ways.
    """
    style = {
        "font.size": 13,
        "svg.hashsalt": "twisted_cluster",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with pyplot.rc_context(style):
        figure, rows = pyplot.subplots(
            2, len(courses), figsize=(13, 7.6), sharex=True, sharey=True, squeeze=False
        )
        for place, (name, (samples, short)) in enumerate(courses.items()):
            colour = COLOURS[place % len(COLOURS)]
            # Of fewer connections than this, chance is all that is to be seen.
            shown = samples[len(samples) // 20 :]
            times = [each.time for each in shown]
            above, below = rows[0][place], rows[1][place]
            _band(above, times, [each.open for each in shown], short.open, colour)
            _band(
                below, times, [each.accepted for each in shown], short.accepted, colour
            )
            above.set_title(name, fontsize=15, fontweight="bold")
            below.set_xlabel("simulated time (s)")
        rows[0][0].set_ylabel("open connections / mean")
        rows[1][0].set_ylabel("accepted so far / mean")
        figure.suptitle(title, fontsize=17)
        figure.tight_layout()
        metadata = {"Date": None} if path.endswith(".svg") else None
        figure.savefig(path, metadata=metadata, dpi=100)
        pyplot.close(figure)


def _band(
    axes: Any,
    times: list[float],
    values: list[tuple[float, float]],
    short: tuple[float, float],
    colour: str,
) -> None:
    most = [each[0] for each in values]
    fewest = [max(each[1], LOWEST) for each in values]
    axes.set_yscale("log", base=2)
    axes.set_ylim(LOWEST, HIGHEST)
    axes.set_xlim(0, times[-1])
    axes.set_yticks(TICKS, [f"{tick:g} ×" for tick in TICKS])
    axes.minorticks_off()
    axes.grid(axis="y", color="#dddddd")
    axes.axhline(1, color="black", linewidth=1, linestyle=":")
    axes.fill_between(times, fewest, most, color=colour, alpha=0.3, linewidth=0)
    axes.plot(times, most, color=colour, linewidth=2)
    axes.plot(times, fewest, color=colour, linewidth=2)
    middle = times[0] + (times[-1] - times[0]) / 2
    for text, height, align in (
        (f"most {short[0]:.2f} ×", max(most) * 1.12, "bottom"),
        (f"fewest {short[1]:.2f} ×", min(fewest) / 1.12, "top"),
    ):
        axes.text(middle, height, text, ha="center", va=align)
