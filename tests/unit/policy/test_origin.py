"""What a backup says of where it comes from, and when that is here."""

from __future__ import annotations

from typing import Any

import pytest

from mipyme_backup.policy.origin import DatabaseOrigin, databases_of, is_same_host


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("web1", "web1", True),
        ("web1", "WEB1", True),
        ("web1", "web1.example.com", True),
        ("web1.example.com", "web1.example.org", False),
        ("web1", "web2", False),
        ("web1", "web10", False),
    ],
)
def test_a_host_is_known_with_its_domain_and_without(one: str, other: str, same: bool) -> None:
    assert is_same_host(one, other) is same
    assert is_same_host(other, one) is same


@pytest.mark.parametrize(
    "origin", [None, [], "shop", {}, {"name": 7}, {"name": ""}, {"place": "db"}, {"name": ["x"]}]
)
def test_facts_that_name_no_database_are_passed_over(origin: Any) -> None:
    facts = {"database.default.dump": {"origin": origin}, "strange": 7}

    assert databases_of([("database:default", facts)]) == {}


def test_each_database_is_found_by_its_source() -> None:
    facts = {"database.default.dump": {"origin": {"name": "shop", "place": 7, "more": 1}}}

    assert databases_of([("database:default", facts), ("media", {})]) == {
        "database:default": DatabaseOrigin(name="shop")
    }
