"""The contract of targets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mipyme_backup.errors import BackupError, SourceError
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Target
from mipyme_backup.testing.readers import BytesReader, raising, read_whole


@dataclass(frozen=True, kw_only=True)
class Restoring:
    """A restore to try: live data, and other data in `artifacts` with `facts` to put in its place.

    `make` returns the target, `again` makes the same one of its state, `live` returns what is
    live now in any form that can be compared.
    """

    make: Callable[[], Target]
    again: Callable[[dict[str, Any]], Target]
    live: Callable[[], Any]
    artifacts: Mapping[str, Callable[[], Reader]]
    facts: Mapping[str, Any]

    def passed_on(self, target: Target) -> Target:
        """Return the target as a later process would have it: made of what was written down."""
        return self.again(json.loads(json.dumps(target.state)))


class TargetContract:
    """What every target holds to; give the fixture ``restoring``."""

    def _loaded(self, restoring: Restoring) -> Target:
        target = restoring.make()
        target.plan()
        target.load(restoring.artifacts)
        assert list(target.check(restoring.facts)) == []
        return target

    def test_nothing_live_changes_before_the_swap(self, restoring: Restoring) -> None:
        old = restoring.live()

        target = self._loaded(restoring)

        assert target.has_live()
        assert restoring.live() == old
        target.discard()
        assert restoring.live() == old

    def test_the_plan_says_what_will_happen(self, restoring: Restoring) -> None:
        plan = restoring.make().plan()

        assert plan
        assert all(str(line) for line in plan)

    def test_a_swap_shows_the_new_and_an_undo_the_old(self, restoring: Restoring) -> None:
        old = restoring.live()
        target = self._loaded(restoring)

        seconds = target.swap()

        new = restoring.live()
        assert seconds >= 0
        assert new != old
        target.undo()
        assert restoring.live() == old
        target.remove_replaced()
        assert restoring.live() == old

    def test_what_was_replaced_can_be_brought_back(self, restoring: Restoring) -> None:
        target = self._loaded(restoring)
        target.state["had_live"] = target.has_live()  # as a restore does before the swap

        target.swap()

        assert restoring.passed_on(target).has_replaced()

    def test_what_was_undone_can_be_swapped_in_again(self, restoring: Restoring) -> None:
        old = restoring.live()
        target = self._loaded(restoring)
        target.swap()
        new = restoring.live()

        target.undo()
        restoring.passed_on(target).swap()

        assert restoring.live() == new
        target.undo()
        assert restoring.live() == old

    def test_its_state_is_all_that_another_process_needs(self, restoring: Restoring) -> None:
        old = restoring.live()
        loaded = self._loaded(restoring)

        swapped = restoring.passed_on(loaded)
        swapped.swap()
        assert restoring.live() != old
        undone = restoring.passed_on(swapped)
        undone.undo()
        assert restoring.live() == old
        restoring.passed_on(undone).remove_replaced()
        assert restoring.live() == old

    def test_every_step_may_come_twice(self, restoring: Restoring) -> None:
        old = restoring.live()
        target = self._loaded(restoring)
        target.load(restoring.artifacts)
        assert list(target.check(restoring.facts)) == []

        target.swap()
        new = restoring.live()
        restoring.passed_on(target).swap()
        assert restoring.live() == new != old

        target.undo()
        restoring.passed_on(target).undo()
        assert restoring.live() == old

        target.remove_replaced()
        target.remove_replaced()
        target.discard()
        target.discard()
        assert restoring.live() == old

    def test_what_was_discarded_can_be_loaded_again(self, restoring: Restoring) -> None:
        old = restoring.live()
        target = self._loaded(restoring)
        target.discard()

        target.load(restoring.artifacts)
        assert list(target.check(restoring.facts)) == []
        target.swap()

        assert restoring.live() != old

    def test_a_load_that_breaks_leaves_live_data_alone(self, restoring: Restoring) -> None:
        old = restoring.live()
        target = restoring.make()
        target.plan()
        broken = SourceError("the stream broke")
        name, opened = next(iter(restoring.artifacts.items()))
        half = BytesReader(read_whole(opened())[:-100], error=broken)

        with raising(BackupError):
            target.load({**restoring.artifacts, name: lambda: half})

        assert restoring.live() == old
        target.discard()
        assert restoring.live() == old
