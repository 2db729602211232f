"""The drawings: where each day lies, and values that are few, equal, or out of bounds."""

from __future__ import annotations

import re
from datetime import date, timedelta
from xml.etree import ElementTree

import pytest
from django.test import override_settings

from mipyme_backup.admin import charts
from mipyme_backup.monitoring.timeline import Calendar, Day

WEDNESDAY = date(2026, 7, 15)


@pytest.mark.parametrize(("language", "row"), [("en-us", 3), ("es", 2)])
def test_weeks_begin_as_in_the_language(language: str, row: int) -> None:
    with override_settings(LANGUAGE_CODE=language):
        drawn = _calendar([WEDNESDAY])

    assert _places(drawn) == [(charts.LEFT, charts.TOP + row * 18)]


def test_next_week_is_the_next_column() -> None:
    places = _places(_calendar([WEDNESDAY + timedelta(days=number) for number in range(8)]))

    assert places[7] == (places[0][0] + 18, places[0][1])
    assert len(set(places)) == 8


def test_ninety_days_stay_within_the_drawing_and_a_phone() -> None:
    drawn = _calendar([WEDNESDAY + timedelta(days=number) for number in range(90)])

    root = ElementTree.fromstring(drawn)
    width, height = int(root.attrib["width"]), int(root.attrib["height"])
    assert width < 300
    assert all(x + charts.CELL <= width and y + charts.CELL <= height for x, y in _places(drawn))


def test_every_outcome_has_a_shape_of_its_own() -> None:
    assert len({*charts.SHAPES.values()}) == len(charts.SHAPES)


def test_words_are_text() -> None:
    day = Day(day=WEDNESDAY, outcome="none", runs=0)
    calendar = Calendar(kind="daily", days=[day])

    drawn = charts.calendar(calendar, label='"><b>', title=lambda day: "<i>")

    root = ElementTree.fromstring(drawn)
    assert root.attrib["aria-label"] == '"><b>'
    assert "<i>" not in drawn


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [1.0, 2.0, 0.5]])
def test_trend_of_any_values_stays_within_the_drawing(values: list[float]) -> None:
    moments = [float(number) for number in range(len(values))]

    drawn = charts.trend(moments, [charts.Series(name="x", values=values)], label="x")

    (line,) = re.findall(r'class="backup-line backup-line-first" d="M([^"]*)"', drawn)
    points = [tuple(map(float, point.split())) for point in line.split("L")]
    assert len(points) == len(values)
    assert all(0 <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT for x, y in points)
    assert (min(y for _x, y in points) == 0) is any(values)


@pytest.mark.parametrize(("share", "width"), [(-1, 0), (0.5, 150), (7, 300)])
def test_bar_is_never_longer_than_its_track(share: float, width: float) -> None:
    drawn = charts.bar(share, tone="good", limit=share)

    root = ElementTree.fromstring(drawn)
    assert float(root[1].attrib["width"]) == width
    assert root[2].attrib["d"].startswith(f"M{float(width)} ")


def _calendar(days: list[date]) -> str:
    calendar = Calendar(
        kind="daily", days=[Day(day=day, outcome="complete", runs=1) for day in days]
    )
    return charts.calendar(calendar, label="daily", title=lambda day: "complete")


def _places(drawn: str) -> list[tuple[int, int]]:
    found = re.findall(r"translate\((\d+) (\d+)\)", drawn)
    return [(int(x), int(y)) for x, y in found]
