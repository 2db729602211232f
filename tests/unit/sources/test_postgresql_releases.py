"""Which releases of PostgreSQL are warned of, and which one to update to."""

from __future__ import annotations

from pathlib import Path

import pytest

from mipyme_backup.sources.postgresql.releases import client_warnings, server_warnings
from mipyme_backup.sources.postgresql.tools import Tool


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (160003, "16.4"),
        (150007, "15.8"),
        (140012, "14.13"),
        (130015, "13.16"),
        (120019, "12.20"),
        (110022, "12.20"),
        (160004, None),
        (150008, None),
        (120020, None),
        (170000, None),
        (180000, None),
        (190000, None),
    ],
)
def test_a_server_is_warned_of_until_the_release_that_refuses_swapped_tables(
    number: int, wanted: str | None
) -> None:
    told = [str(message) for message in server_warnings(number)]

    assert len(told) == (wanted is not None)
    assert all(f"CVE-2024-7348): update it to {wanted} or newer" in line for line in told)


@pytest.mark.parametrize(
    ("version", "flaws", "wanted"),
    [
        ("16.3", 6, "16.16"),
        ("16.4", 5, "16.16"),
        ("16.10", 3, "16.16"),
        ("16.15", 1, "16.16"),
        ("17.5", 5, "17.12"),
        ("18.4", 2, "18.7"),
        ("18.6", 1, "18.7"),
        ("13.23", 3, "14.25"),  # of which there is no newer release
        ("18beta1", 3, "18.7"),
        ("18.7", 0, ""),
        ("17.12", 0, ""),
        ("16.16", 0, ""),
        ("15.20", 0, ""),
        ("14.25", 0, ""),
        ("19beta2", 0, ""),
        ("19.0", 0, ""),
    ],
)
def test_client_tools_are_warned_of_once_with_all_that_they_lack(
    version: str, flaws: int, wanted: str
) -> None:
    told = [str(message) for message in client_warnings(Tool(path=Path("/pg"), version=version))]

    assert len(told) == (flaws > 0)
    assert sum(line.count("CVE-") for line in told) == flaws
    assert all(f"update the client tools to {wanted} or newer" in line for line in told)
