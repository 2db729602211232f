"""The drawings of the page, as SVG without script or style, each with its numbers in words.

Colours come from the style sheet by class, so that they follow the theme, and each outcome has a
shape of its own. Coordinates are written by Python, and never as the locale writes numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from django.utils.dates import MONTHS_3, WEEKDAYS_ABBR
from django.utils.formats import get_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from mipyme_backup.monitoring.timeline import Calendar, Day

CELL, GAP, LEFT, TOP = 15, 3, 30, 16
WIDTH, HEIGHT = 600, 120
BAR_WIDTH, BAR_HEIGHT = 300, 10
SHAPES = {
    "complete": "M0 0h15v15h-15z",
    "partial": "M0 15v-15h15z",
    "failed": "M1 1l13 13M14 1l-13 13",
    "running": "M1.5 1.5h12v12h-12z",
    "none": "M5.5 7.5h4",
}
"""What each outcome looks like in a cell; lines for ``failed``, ``running`` and ``none``."""


def calendar(days: Calendar, *, label: str, title: Callable[[Day], str]) -> SafeString:
    """Return the weeks as columns, the first day of the week on top; `title` tells of a day."""
    first = days.days[0].day
    start = first - timedelta(days=_row(first))
    columns = (days.days[-1].day - start).days // 7 + 1
    cells = format_html_join(
        "",
        '<g transform="translate({} {})" class="backup-day-{}"><title>{}</title>'
        '<rect width="15" height="15" class="backup-cell"/><path d="{}"/></g>',
        (
            (
                LEFT + (day.day - start).days // 7 * (CELL + GAP),
                TOP + _row(day.day) * (CELL + GAP),
                day.outcome,
                title(day),
                SHAPES[day.outcome],
            )
            for day in days.days
        ),
    )
    names = format_html_join(
        "", '<text x="{}" y="{}">{}</text>', [*_weekdays(), *_months(start, columns)]
    )
    return format_html(
        '<svg class="backup-calendar" role="img" aria-label="{}" width="{}" height="{}"'
        ' viewBox="0 0 {} {}">{}{}</svg>',
        label,
        *(LEFT + columns * (CELL + GAP), TOP + 7 * (CELL + GAP)) * 2,
        names,
        cells,
    )


def sample(outcome: str) -> SafeString:
    """Return the cell of an outcome, for the legend."""
    return format_html(
        '<svg class="backup-calendar" aria-hidden="true" width="15" height="15"'
        ' viewBox="0 0 15 15"><g class="backup-day-{}">'
        '<rect width="15" height="15" class="backup-cell"/><path d="{}"/></g></svg>',
        outcome,
        SHAPES[outcome],
    )


def _row(day: date) -> int:
    """Return the row of a day, by the day that a week begins with in this locale."""
    return (day.isoweekday() - int(get_format("FIRST_DAY_OF_WEEK"))) % 7


def _weekdays() -> Iterator[tuple[int, int, str]]:
    for row in (0, 2, 4, 6):
        weekday = (int(get_format("FIRST_DAY_OF_WEEK")) + row - 1) % 7
        yield 0, TOP + row * (CELL + GAP) + 12, str(WEEKDAYS_ABBR[weekday])


def _months(start: date, columns: int) -> Iterator[tuple[int, int, str]]:
    """Yield the name of each month above the first week that begins in it."""
    before, free = None, -1
    for column in range(columns):
        month = (start + timedelta(days=7 * column)).month
        if month != before and column > free:
            before, free = month, column + 1
            yield LEFT + column * (CELL + GAP), 11, capfirst(MONTHS_3[month])


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of a trend: one value for each moment; `style` is ``first`` or ``second``."""

    name: str
    values: Sequence[float]
    style: str = "first"


def trend(moments: Sequence[float], lines: Sequence[Series], *, label: str) -> SafeString:
    """Return lines from zero to the highest value; `moments` are in seconds, in order.

    The drawing is stretched to the width that there is; its labels stand beside it, as text.
    """
    highest = max((value for line in lines for value in line.values), default=0) or 1
    first, span = moments[0], moments[-1] - moments[0]
    x = [WIDTH * ((at - first) / span if span else 0.5) for at in moments]
    drawn = format_html_join(
        "",
        '<path class="backup-line backup-line-{}" d="{}"/>'
        '<path class="backup-dots backup-line-{}" d="{}"/>',
        (
            (line.style, _path(points), line.style, _dots(points))
            for line in lines
            for points in [
                [(at, HEIGHT * (1 - v / highest)) for at, v in zip(x, line.values, strict=True)]
            ]
        ),
    )
    return format_html(
        '<svg class="backup-trend" role="img" aria-label="{}" viewBox="0 0 {} {}"'
        ' preserveAspectRatio="none">'
        '<path class="backup-grid" d="M0 0H{}M0 {}H{}M0 {}H{}"/>{}</svg>',
        label,
        *(WIDTH, HEIGHT, WIDTH, HEIGHT // 2, WIDTH, HEIGHT, WIDTH),
        drawn,
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _dots(points: Sequence[tuple[float, float]]) -> str:
    """Return lines of no length: their round ends stay round, however the drawing is stretched."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)


def bar(share: float, *, tone: str, limit: float | None = None) -> SafeString:
    """Return a bar filled by `share`, from 0 to 1, with a mark at the share `limit`.

    The text beside it must say the same.
    """
    mark = ""
    if limit is not None:
        at = f"{BAR_WIDTH * min(max(limit, 0), 1):.1f}"
        mark = format_html('<path class="backup-limit" d="M{} -3v{}"/>', at, BAR_HEIGHT + 6)
    return format_html(
        '<svg class="backup-bar" aria-hidden="true" viewBox="0 -3 {} {}"'
        ' preserveAspectRatio="none"><rect class="backup-track" width="{}" height="{}"/>'
        '<rect class="backup-fill backup-fill-{}" width="{}" height="{}"/>{}</svg>',
        *(BAR_WIDTH, BAR_HEIGHT + 6, BAR_WIDTH, BAR_HEIGHT),
        tone,
        f"{BAR_WIDTH * min(max(share, 0), 1):.1f}",
        BAR_HEIGHT,
        mark,
    )
