"""What counts as a loss, and what is the use that tables are put to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from mipyme_backup.policy.status import findings
from mipyme_backup.policy.status_facts import BackupFacts
from mipyme_backup.policy.suspicion import Loss, emptied, loss
from tests.unit.policy.shapes import HOUR, NOW, POLICY, backup, facts

SHRINKING = replace(POLICY, max_shrink=0.5)


def history(
    *rows: int | Mapping[str, int], sizes: Sequence[int] = (), **newest: object
) -> list[BackupFacts]:
    """Backups of the table ``orders``, or of these tables; the oldest first."""
    made = [
        backup(
            number,
            (len(rows) - number) * HOUR,
            rows={"orders": item} if isinstance(item, int) else item,
            media_size=sizes[number] if sizes else 10**7,
            **(newest if number == len(rows) - 1 else {}),
        )
        for number, item in enumerate(rows)
    ]
    return made[::2] + made[1::2]  # in no order


def lost(backups: Sequence[BackupFacts], max_shrink: float = 0.5) -> Loss:
    found = loss(max_shrink, backups)
    assert found is not None
    return found


def told(backups: Sequence[BackupFacts]) -> dict[str, str]:
    return {f.id: str(f.message) for f in findings(SHRINKING, facts(*backups), NOW)}


class TestRows:
    def test_more_than_half_of_the_rows_gone(self) -> None:
        found = told(history(1000, 1000, 1000, 499))

        assert found.keys() == {"rows_fallen"}
        assert "orders 1000 → 499" in found["rows_fallen"]

    def test_half_itself_is_allowed(self) -> None:
        assert told(history(1000, 1000, 1000, 500)) == {}

    def test_fewer_than_three_before_say_nothing(self) -> None:
        assert told(history(1000, 1000, 1)) == {}

    def test_small_tables_halve_every_day(self) -> None:
        assert told(history(99, 99, 99, 0)) == {}
        assert told(history(100, 100, 100, 0)).keys() == {"rows_fallen"}

    def test_the_worst_three_are_named(self) -> None:
        full = dict.fromkeys("abcde", 1000)
        now = {"a": 400, "b": 300, "c": 200, "d": 100, "e": 1000}

        message = told(history(full, full, full, now))["rows_fallen"]

        assert "d 1000 → 100, c 1000 → 200, b 1000 → 300, …" in message
        assert "a 1000" not in message and "e 1000" not in message

    def test_one_outlier_does_not_make_the_usual(self) -> None:
        assert told(history(1000, 90000, 1000, 1000)) == {}

    def test_what_goes_up_and_down_is_in_use(self) -> None:
        assert told(history(1000, 1000, 10, 1000, 1000, 10)) == {}

    def test_lasting_loss_is_told_until_it_is_the_most_of_seven(self) -> None:
        days = [
            bool(told(history(*[1000] * 10, *[10] * smaller)).get("rows_fallen"))
            for smaller in range(1, 7)
        ]

        assert days == [True, True, True, True, False, False]

    def test_only_good_whole_ones_are_compared(self) -> None:
        whole = history(1000, 1000, 1000, 1000)
        damaged = backup(7, rows={"orders": 1}, copies={"local": "damaged"})
        part = backup(8, rows={"orders": 1}, whole=False)
        safety = backup(9, rows={"orders": 1}, kind="safety")

        assert not lost([*whole, damaged, part, safety]).rows


class TestSize:
    def test_more_than_half_gone(self) -> None:
        sizes = [10**7, 10**7, 10**7, 4 * 10**6]

        assert told(history(1, 1, 1, 1, sizes=sizes)).keys() == {"size_fallen"}

    def test_little_is_nothing(self) -> None:
        assert told(history(1, 1, 1, 1, sizes=[10**5, 10**5, 10**5, 1])) == {}


class TestVanished:
    def test_table_with_rows_is_missed(self) -> None:
        before = {"orders": 9, "empty": 0, "kept": 1}

        found = told(history(before, before, before, {"kept": 1}))

        assert found.keys() == {"tables_vanished"}
        assert "(1): orders" in found["tables_vanished"]

    def test_partitions_go_as_others_come(self) -> None:
        days = [{f"events_2025_01_{day:02}": 500, "orders": 1} for day in range(1, 5)]

        assert told(history(*days)) == {}

    def test_it_alone_makes_nothing_suspect(self) -> None:
        before = {"orders": 9, "kept": 1}

        assert lost(history(before, before, before, {"kept": 1})).suspect is None


@pytest.mark.parametrize(
    ("rows", "sizes", "suspect"),
    [
        ([1000] * 4, [10**7] * 4, False),
        ([1000, 1000, 1000, 0], [10**7] * 4, True),
        ([1000] * 4, [10**7, 10**7, 10**7, 0], True),
    ],
)
def test_suspect(rows: list[int], sizes: list[int], suspect: bool) -> None:
    assert bool(lost(history(*rows, sizes=sizes)).suspect) == suspect


def test_whoever_allows_any_loss_is_told_of_none() -> None:
    gone = lost(history(1000, 1000, 1000, {}, sizes=[10**7, 10**7, 10**7, 0]), max_shrink=1)

    assert (gone.suspect, gone.size, [*gone.rows], [*gone.vanished]) == (None, None, [], [])


class TestEmptied:
    """A small site loses everything below every floor that the falls have."""

    FEW = {"shop_order": 3, "auth_user": 2, "auth_permission": 40, "django_session": 9}
    NONE = {"shop_order": 0, "auth_user": 0, "auth_permission": 40, "django_session": 1}

    def test_few_rows_that_are_all_gone(self) -> None:
        found = told(history(self.FEW, self.NONE))

        assert found.keys() == {"rows_gone"}
        assert "(2)" in found["rows_gone"] and "mipyme_backup_0" in found["rows_gone"]

    def test_it_is_told_until_a_week_of_backups_has_passed(self) -> None:
        assert "rows_gone" in told(history(self.FEW, *[self.NONE] * 7))
        assert told(history(self.FEW, *[self.NONE] * 8)) == {}

    def test_rows_that_a_migration_brings_hide_nothing(self) -> None:
        before = {**self.FEW, "shop_country": 200}

        assert "rows_gone" in told(history(before, {**self.NONE, "shop_country": 200}))

    def test_in_other_databases_and_schemas_too(self) -> None:
        before = {"public.a": 1, "public.auth_permission": 9, "logs: public.b": 1}
        after = {"public.a": 0, "public.auth_permission": 9, "logs: public.b": 0}

        assert "rows_gone" in told(history(before, after))

    def test_what_was_empty_once_before_comes_and_goes(self) -> None:
        assert told(history(self.NONE, self.FEW, self.NONE)) == {}

    @pytest.mark.parametrize(
        "after",
        [
            {"shop_order": 0, "auth_user": 2},
            {"shop_order": 1, "auth_user": 0},
            {"store_order": 3, "accounts_user": 2},  # renamed, not emptied
        ],
    )
    def test_what_is_in_use_is_no_loss(self, after: Mapping[str, int]) -> None:
        assert told(history(self.FEW, after)) == {}

    def test_it_holds_prune_back_and_max_shrink_lets_it_go(self) -> None:
        backups = history(self.FEW, self.NONE)

        found = emptied(0.5, backups)

        assert found is not None and "most tables (2)" in str(found.suspect)
        assert emptied(1, backups) is None
