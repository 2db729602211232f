"""The shapes of stored documents: what fits stays as it is, what does not is left out."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from mipyme_backup import stored_shapes
from tests import past
from tests.unit.test_manifest import example


def test_manifest_of_ours_stays_as_it_is() -> None:
    kept = json.loads(json.dumps(dataclasses.asdict(example()), default=str))

    assert stored_shapes.MANIFEST(kept) == kept


def test_manifest_of_another_version_stays_as_it_is() -> None:
    kept = past._manifest("1", "daily", "daily", past.now(), 4096, 3) | {"new": {"a": [1]}}

    assert stored_shapes.MANIFEST(kept) == kept


def test_steps_of_a_drill_stay_as_they_are() -> None:
    steps = [{"name": "counts", "ok": True, "seconds": 3.1, "problems": ["x"], "more": None}]

    assert stored_shapes.STEPS(steps) == steps


@pytest.mark.parametrize("value", [True, -1, 2**63, 1.5, "7", None, [], 10**40])
def test_no_count(value: Any) -> None:
    assert stored_shapes.listing(stored_shapes.count)([value]) == []


@pytest.mark.parametrize("value", [True, float("nan"), float("inf"), 10**40, "7", None])
def test_no_seconds(value: Any) -> None:
    assert stored_shapes.listing(stored_shapes.seconds)([value]) == []


@pytest.mark.parametrize(
    "value", ["2026-01-01", "2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "x", "", 7, None]
)
def test_no_moment(value: Any) -> None:
    assert stored_shapes.listing(stored_shapes.moment)([value]) == []


def test_step_that_does_not_say_how_it_went_has_failed() -> None:
    (step,) = stored_shapes.STEPS([{"name": "counts"}, {"ok": True}, 7])

    assert step == {"name": "counts", "ok": False, "seconds": 0.0, "problems": []}


def test_what_is_filled_in_is_of_that_row_alone() -> None:
    first, second = (stored_shapes.STEPS([{"name": "counts"}])[0] for _time in range(2))
    first["problems"].append("x")

    assert second["problems"] == []
