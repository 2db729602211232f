"""The past on the health page: calendars and trends, each as a drawing and as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from mipyme_backup.admin import charts, marks
from mipyme_backup.models import Backup
from mipyme_backup.monitoring.timeline import OUTCOMES, Calendar, Day, Point


def calendar_context(calendars: Sequence[Calendar]) -> dict[str, Any]:
    """Return the calendars, the same as a table, and what their signs mean."""
    words = {
        "complete": _("complete"),
        "partial": _("partial"),
        "failed": _("failed"),
        "running": _("running"),
        "none": _("none"),
    }
    days = calendars[0].days if calendars else ()
    dates = {day.day: date_format(day.day, "SHORT_DATE_FORMAT") for day in days}
    said: dict[tuple[str, int], str] = {}

    def word(day: Day) -> str:
        key = (day.outcome, day.runs)
        if key not in said:
            runs = ngettext("%(count)d run", "%(count)d runs", day.runs) % {"count": day.runs}
            said[key] = words[day.outcome] + (f" ({runs})" if day.runs > 1 else "")
        return said[key]

    def title(day: Day) -> str:
        return f"{dates[day.day]}: {word(day)}"

    return {
        "calendars": [_calendar(calendar, words, title) for calendar in calendars],
        # Today first.
        "calendar_rows": [
            {"day": dates[days[0].day], "outcomes": [*map(word, days)]}
            for days in zip(*(reversed(calendar.days) for calendar in calendars), strict=True)
        ],
        "legend": [(charts.sample(outcome), words[outcome]) for outcome in reversed(OUTCOMES)],
    }


def _calendar(
    calendar: Calendar, words: Mapping[str, str], title: Callable[[Day], str]
) -> dict[str, Any]:
    counts = ", ".join(f"{words[name]}: {count}" for name, count in calendar.counts.items())
    kind = kind_word(calendar.kind)
    return {
        "kind": kind,
        "counts": counts,
        "chart": charts.calendar(calendar, label=f"{kind}: {counts}", title=title),
    }


def kind_word(kind: str) -> str:
    """Return the word for a kind of backup."""
    return str(dict(Backup.Kind.choices).get(kind, kind))


def trend_context(points: Sequence[Point]) -> dict[str, Any]:
    """Return the trends, and the same as a table, the newest first."""
    return {"trends": _trends(points), "trend_rows": [_point(point) for point in reversed(points)]}


def _trends(points: Sequence[Point]) -> list[dict[str, Any]]:
    if not points:
        return []
    moments = [point.at.timestamp() for point in points]
    largest, longest = max(p.raw_size for p in points), max(p.seconds for p in points)
    highest_stored = max(p.stored_size for p in points)
    raw = charts.Series(name=_("data"), values=[p.raw_size for p in points], style="second")
    stored = charts.Series(name=_("as stored"), values=[p.stored_size for p in points])
    took = charts.Series(name=_("duration"), values=[p.seconds for p in points])
    span = {"first": localtime(points[0].at), "last": localtime(points[-1].at)}
    return [
        {
            **span,
            "title": _("Size"),
            "highest": marks.size(max(largest, highest_stored)),
            "lowest": marks.size(0),
            "lines": [stored, raw],
            "chart": charts.trend(
                moments,
                [stored, raw],
                label=_("Size by day: the last is %(last)s as stored, of %(raw)s of data")
                % {
                    "last": marks.size(points[-1].stored_size),
                    "raw": marks.size(points[-1].raw_size),
                },
            ),
        },
        {
            **span,
            "title": _("Duration"),
            "highest": marks.duration(longest),
            "lowest": marks.duration(0),
            "lines": [took],
            "chart": charts.trend(
                moments,
                [took],
                label=_("Duration by day: the last took %(last)s")
                % {"last": marks.duration(points[-1].seconds)},
            ),
        },
    ]


def _point(point: Point) -> dict[str, Any]:
    return {
        "at": marks.moment(point.at),
        "name": point.name,
        "raw": marks.size(point.raw_size),
        "stored": marks.size(point.stored_size),
        "seconds": marks.duration(point.seconds),
    }
