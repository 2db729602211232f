"""Each problem is told once, and its end once; what is lost on the way comes again."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipyme_backup.messages import Message
from mipyme_backup.policy.alerting import Decision, Record, Told, decide
from mipyme_backup.policy.status import Finding, Level

NOW = datetime(2025, 1, 10, 3, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
IDS = ("no_backup", "backup_old", "disk_low:local", "copy_missing:offsite")


def finding(name: str, level: Level = "warning", text: str = "It is so.") -> Finding:
    return Finding(id=name, level=level, message=Message(text), hint=Message("Mend it."))


def look(known: Record, *found: Finding, now: datetime = NOW, **changes: Any) -> Decision:
    return decide(known, found, **{"digest": None, "now": now, **changes})


def raised(decision: Decision) -> list[str]:
    return [item.id for item in decision.raised]


def cleared(decision: Decision) -> list[str]:
    return [item.id for item in decision.cleared]


def after(*found: Finding) -> Record:
    """Return the record of a channel that was told of `found`."""
    return look(Record(), *found).record


class TestDecide:
    def test_new_problem_is_told_once(self) -> None:
        first = look(Record(), finding("no_backup"))
        second = look(first.record, finding("no_backup"), now=NOW + HOUR)

        assert (raised(first), cleared(first)) == (["no_backup"], [])
        assert not second.speaks
        assert first.record.findings["no_backup"].since == NOW
        assert second.record == first.record

    def test_end_is_told_once_with_what_it_was(self) -> None:
        first = look(after(finding("no_backup", "critical", "None.")), now=NOW + HOUR)
        second = look(first.record, now=NOW + 2 * HOUR)

        (end,) = first.cleared
        assert (end.id, end.level, end.since, end.text) == ("no_backup", "critical", NOW, "None.")
        assert raised(first) == []
        assert not second.speaks
        assert second.record == Record()

    def test_what_is_good_to_know_is_no_problem(self) -> None:
        decision = look(Record(), finding("cannot_open", "ok"))

        assert not decision.speaks
        assert decision.record == decision.owed == Record()

    def test_problem_that_became_good_to_know_has_ended(self) -> None:
        assert cleared(look(after(finding("a")), finding("a", "ok"))) == ["a"]

    def test_worse_is_told_again_and_less_bad_is_not(self) -> None:
        worse = look(after(finding("a")), finding("a", "critical"), now=NOW + HOUR)
        better = look(worse.record, finding("a"), now=NOW + 2 * HOUR)
        worse_again = look(better.record, finding("a", "critical"), now=NOW + 3 * HOUR)

        assert (raised(worse), cleared(worse)) == (["a"], [])
        assert worse.record.findings["a"].since == NOW
        assert not better.speaks
        assert raised(worse_again) == ["a"]

    def test_text_that_grows_older_is_no_news(self) -> None:
        known = after(finding("backup_old", text="It is 26 h old."))

        assert not look(known, finding("backup_old", text="It is 27 h old.")).speaks

    def test_problem_behind_a_destination_that_is_away_has_not_ended(self) -> None:
        known = after(finding("copy_missing:offsite"), finding("disk_low:local"))
        away = finding("destination_unreachable:offsite")

        while_away = look(known, away)
        back = look(while_away.record)

        assert (raised(while_away), cleared(while_away)) == ([away.id], ["disk_low:local"])
        assert sorted(cleared(back)) == ["copy_missing:offsite", away.id]

    def test_problem_that_the_catalog_alone_tells_of_has_not_ended_without_it(self) -> None:
        told = ["last_run_failed", "slot_missed:daily", "copy_damaged:local", "drill_failed"]
        known = after(*map(finding, told), finding("disk_low:local"))
        away = finding("no_catalog")

        while_away = look(known, away)
        back = look(while_away.record)

        assert (raised(while_away), cleared(while_away)) == (["no_catalog"], ["disk_low:local"])
        assert sorted(cleared(back)) == sorted([*told, "no_catalog"])

    def test_nothing_ends_in_a_look_that_failed(self) -> None:
        known = after(finding("a"))

        blind = look(known, finding("cannot_tell"), sees_all=False, digest="daily")

        assert (raised(blind), cleared(blind), blind.digest) == (["cannot_tell"], [], False)
        assert set(blind.record.findings) == {"a", "cannot_tell"}


class TestFailedMessage:
    def test_problem_that_was_not_told_is_told_by_the_next_look(self) -> None:
        failed = look(Record(), finding("a"))

        again = look(failed.owed, finding("a"), now=NOW + HOUR)

        assert raised(again) == ["a"]
        assert again.record.findings["a"].since == NOW
        assert not look(again.record, finding("a")).speaks

    def test_problem_that_passed_meanwhile_is_told_with_its_end(self) -> None:
        failed = look(Record(), finding("a", "critical"))

        (end,) = look(failed.owed, now=NOW + HOUR).cleared

        assert (end.id, end.level, end.since) == ("a", "critical", NOW)

    def test_end_that_was_not_told_is_told_by_the_next_look(self) -> None:
        failed = look(after(finding("a")))

        assert cleared(look(failed.owed)) == ["a"]

    def test_rise_that_was_not_told_is_told_by_the_next_look(self) -> None:
        failed = look(after(finding("a")), finding("a", "critical"))

        assert raised(look(failed.owed, finding("a", "critical"))) == ["a"]

    def test_digest_that_was_not_sent_is_due_by_the_next_look(self) -> None:
        failed = look(Record(), digest="weekly")

        assert look(failed.owed, digest="weekly", now=NOW + HOUR).digest


class TestDigest:
    def test_first_look_sends_one(self) -> None:
        assert look(Record(), digest="weekly").digest

    @pytest.mark.parametrize(("digest", "period"), [("daily", DAY), ("weekly", 7 * DAY)])
    def test_next_is_due_at_its_hour_even_a_little_early(
        self, digest: str, period: timedelta
    ) -> None:
        known = Record(digest_at=NOW)

        assert not look(known, digest=digest, now=NOW + period - HOUR).digest
        assert look(known, digest=digest, now=NOW + period - timedelta(minutes=1)).digest

    def test_hourly_looks_send_one_a_week_and_at_one_hour(self) -> None:
        known, sent = Record(), []
        for hour in range(24 * 29):
            now = NOW + hour * HOUR + timedelta(seconds=hour * 37 % 60)
            decision = look(known, digest="weekly", now=now)
            known = decision.record
            if decision.digest:
                sent.append((now - NOW) // HOUR)

        assert sent == [0, 168, 336, 504, 672]

    def test_none_is_wanted(self) -> None:
        assert not look(Record(), digest=None).digest
        assert look(Record(digest_at=NOW), digest=None).record.digest_at == NOW

    def test_clock_that_was_ahead_keeps_none_back(self) -> None:
        known = Record(digest_at=NOW + 400 * DAY)

        assert look(known, digest="weekly").digest

    def test_alert_that_comes_at_its_time_serves_as_one(self) -> None:
        decision = look(Record(), finding("a"), digest="weekly")

        assert decision.digest
        assert not look(decision.record, finding("a"), digest="weekly", now=NOW + HOUR).speaks


histories = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(IDS), st.sampled_from(["warning", "critical"])),
        st.sampled_from(["arrives", "fails", "dies before", "dies after"]),
    ),
    max_size=30,
)


def play(history: list[tuple[dict[str, Level], str]]) -> list[list[tuple[str, str]]]:
    """Return what arrives by each look, where messages fail and watchers die as `history` says."""
    known, arrived = Record(), []
    for number, (levels, fate) in enumerate(history):
        found = [finding(name, level) for name, level in levels.items()]
        decision = look(known, *found, now=NOW + number * HOUR)
        known = decision.owed  # the record before the message
        arrives = fate in {"arrives", "dies after"}
        arrived.append(
            [
                *[("raised", item.id) for item in decision.raised if arrives],
                *[("cleared", item.id) for item in decision.cleared if arrives],
            ]
        )
        if fate == "arrives" or not decision.speaks:
            known = decision.record
    return arrived


@given(history=histories)
def test_each_problem_and_each_end_is_told_once(history: Any) -> None:
    arrived = play([(levels, "arrives") for levels, _fate in history])

    before: dict[str, Level] = {}
    for (levels, _fate), told in zip(history, arrived, strict=True):
        worse = {
            name
            for name, level in levels.items()
            if name not in before or (before[name], level) == ("warning", "critical")
        }
        ended = before.keys() - levels.keys()
        assert sorted(told) == sorted(
            [*(("raised", name) for name in worse), *(("cleared", name) for name in ended)]
        )
        before = levels


@given(history=histories, last=st.dictionaries(st.sampled_from(IDS), st.just("warning")))
def test_failures_and_deaths_repeat_but_never_lose(history: Any, last: Any) -> None:
    arrived = play([*history, (last, "arrives")])

    for name in IDS:
        told = [kind for look_told in arrived for kind, about in look_told if about == name]
        ever = any(name in levels for levels, _fate in [*history, (last, "")])
        assert bool(told) == ever  # whatever was seen once is heard of
        assert told[-1:] == (["raised"] if name in last else ["cleared"] if ever else [])


@given(history=histories)
def test_nothing_is_told_of_what_was_never_seen(history: Any) -> None:
    seen: set[str] = set()
    for (levels, _fate), told in zip(history, play(history), strict=True):
        seen |= levels.keys()
        assert {about for _kind, about in told} <= seen


def test_record_says_what_is_owed() -> None:
    decision = look(Record(), finding("a", "critical", "Bad."))

    assert decision.owed.findings == {
        "a": Told(level="critical", since=NOW, text="Bad.", owed=True)
    }
    assert decision.record.findings == {"a": Told(level="critical", since=NOW, text="Bad.")}


def test_imports_no_django() -> None:
    code = "import sys, mipyme_backup.policy.alerting; assert 'django' not in sys.modules"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
