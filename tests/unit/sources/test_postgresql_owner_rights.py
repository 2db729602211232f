"""What of a dump's table of contents must not run with the rights of a new owner."""

from __future__ import annotations

import pytest

from mipyme_backup.sources.postgresql.archive import Contents, Entry
from mipyme_backup.sources.postgresql.owner_rights import disarming

TRUSTED = frozenset({"shop"})
DEFINER = "CREATE FUNCTION … SECURITY DEFINER …"


def entry(kind: str, tag: str, owner: str, definition: str = "") -> Entry:
    return Entry(
        id=1,
        kind=kind,
        schema="public",
        tag=tag,
        owner=owner,
        definition=definition,
        tablespace="",
        has_data=False,
    )


def disarmed(*entries: Entry) -> tuple[str, str]:
    statement, told = disarming(Contents(entries=entries), TRUSTED, {})
    return statement, "\n".join(map(str, told))


def test_nothing_changes_where_others_own_nothing_that_runs_as_its_owner() -> None:
    assert disarmed(
        entry("FUNCTION", "peek()", "shop", DEFINER),
        entry("VIEW", "seen", "shop", "CREATE VIEW public.seen AS …"),
        entry("FUNCTION", "plain()", "mallory", "CREATE FUNCTION …"),
        entry("TABLE", "bait", "mallory"),
    ) == ("", "")


def test_a_trusted_owners_routine_keeps_its_rights_beside_anothers() -> None:
    statement, told = disarmed(
        entry("FUNCTION", "mine()", "shop", DEFINER),
        entry("PROCEDURE", "peek()", "mallory", DEFINER),
    )

    assert "ARRAY['routine public.mine()']" in statement
    assert "public.peek() (mallory)" in told
    assert "mine" not in told


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE VIEW public.seen AS SELECT 1 AS \"security_invoker='true'\"",
        "CREATE VIEW public.\"my WITH (security_invoker='true') AS\" AS SELECT 1",
        "CREATE VIEW public.seen WITH (security_barrier='true') AS SELECT 1",
    ],
)
def test_a_name_in_a_view_does_not_hide_it(definition: str) -> None:
    statement, told = disarmed(entry("VIEW", "seen", "mallory", definition))

    assert statement
    assert "public.seen (mallory)" in told


def test_a_view_that_reads_as_its_caller_is_not_named() -> None:
    _statement, told = disarmed(
        entry("VIEW", "seen", "mallory", "CREATE VIEW public.seen WITH (security_invoker='on') AS")
    )
    assert told == ""


@pytest.mark.parametrize("tag", ["peek()", "d\udcf1()", 'x(public."$mipyme_backup$;")'])
def test_a_doubtful_name_is_not_trusted(tag: str) -> None:
    """Two routines have it, it is no text, or it would end the statement's quotes."""
    other = entry("FUNCTION", "peek()", "mallory", DEFINER)

    statement, _told = disarmed(entry("FUNCTION", tag, "shop", DEFINER), other)

    assert "ARRAY[]" in statement


def test_an_unknown_format_is_trusted_only_where_all_owners_are() -> None:
    unknown = Contents(known=False)

    assert disarming(unknown, TRUSTED, {"owners": ["shop"]}) == ("", [])
    statement, (told,) = disarming(unknown, TRUSTED, {"owners": ["mallory", "shop"]})
    assert "ARRAY[]" in statement
    assert "mallory" in str(told)
