"""A source that a project wrote: all that operations do with ours, they do with that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import Project, sqlite_project

ENTRIES = "entry 1\nentry 2\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("own_source")
    sources: dict[str, Any] = {
        "database": {"BACKEND": "mipyme_backup.sources.DatabaseSource"},
        "media": {"BACKEND": "mipyme_backup.sources.MediaSource"},
    }
    for name in ("cash", "stock"):
        path = str(folder / f"{name}.txt")
        sources[name] = {"BACKEND": "tests.ledger.LedgerSource", "OPTIONS": {"path": path}}
    with sqlite_project(folder / "project", SOURCES=sources) as shop:
        shop.populate()
        yield shop


@pytest.fixture
def ledgers(shop: Project) -> tuple[Path, Path]:
    cash, stock = (shop.root.parents[1] / f"{name}.txt" for name in ("cash", "stock"))
    cash.write_text(ENTRIES)
    stock.write_text("entry of the stock\n")
    return cash, stock


def test_whole_life(shop: Project, ledgers: tuple[Path, Path]) -> None:
    cash, stock = ledgers
    printed = shop.manage("backup").stdout
    assert "2 lines" in printed
    saved = shop.json("list_backups")[0]
    assert saved["sources"][-2:] == ["cash", "stock"]
    assert shop.manage("verify_backups", "--level", "content").returncode == 0

    cash.write_text("entry 1\nentry lost\n")
    stock.unlink()
    plan = shop.restore("--latest", "--plan")["plan"]
    assert f"The ledger is put at {cash}." in plan
    done = shop.restore("--latest")
    assert cash.read_text() == ENTRIES
    assert stock.read_text() == "entry of the stock\n"
    assert Path(done["replaced"]["cash"]).read_text() == "entry 1\nentry lost\n"
    assert "stock" not in done["replaced"]
    safety = shop.json("list_backups")
    assert any(
        row["kind"] == "safety" and "cash" in row["sources"] and "stock" not in row["sources"]
        for row in safety
    )


@pytest.mark.rare
def test_restored_alone_and_undone(shop: Project, ledgers: tuple[Path, Path]) -> None:
    cash, _stock = ledgers
    saved = shop.backup()["id"]
    cash.write_text("entry 3\n")
    before = shop.fingerprint()

    shop.restore(saved, "--only", "cash")
    assert cash.read_text() == ENTRIES
    shop.manage("restore", "--undo", "--no-input")

    assert cash.read_text() == "entry 3\n"
    assert shop.fingerprint() == before


def test_rehearsed(shop: Project, ledgers: tuple[Path, Path]) -> None:
    shop.backup()
    drill = shop.json("restore_drill")

    steps = {step["name"]: step["ok"] for step in drill["steps"]}
    assert steps["fetch_and_load:cash"]
    assert drill["passed"], drill


def test_what_it_finds_wrong_is_damage(shop: Project, ledgers: tuple[Path, Path]) -> None:
    cash, _stock = ledgers
    cash.write_text("entry 1\nnonsense\n")
    shop.backup()

    found = shop.manage("verify_backups", "--latest", "--level", "content", check=False)

    assert found.returncode == 6
    assert "cash.txt: a line is no entry" in found.stdout


@pytest.mark.rare
def test_entry_that_is_gone_from_the_settings(
    shop: Project, ledgers: tuple[Path, Path], tmp_path: Path
) -> None:
    """The content cannot be checked, and a restore says which entry it lacks, or leaves it out."""
    saved = shop.backup()["id"]
    other = shop.clone(tmp_path / "clone")
    del other.backup_settings["SOURCES"]
    other.write()

    found = other.manage("verify_backups", saved, "--level", "content", check=False)
    refused = other.manage("restore", saved, "--no-input", check=False)

    assert found.returncode == 1, found.stderr
    assert "SOURCES has no such entry" in found.stderr
    assert refused.returncode == 1
    assert "--only" in refused.stderr
    other.restore(saved, "--only", "database", "--only", "media")


def test_failing_source_is_named(shop: Project, ledgers: tuple[Path, Path]) -> None:
    cash, _stock = ledgers
    cash.unlink()

    failed = shop.manage("backup", check=False)

    assert failed.returncode == 1
    assert "The source cash failed: FileNotFoundError" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_source_that_can_only_be_saved_stops_nothing_else(
    shop: Project, ledgers: tuple[Path, Path]
) -> None:
    shop.backup_settings["SOURCES"]["note"] = {"BACKEND": "tests.ledger.SavedOnlySource"}
    shop.write()
    try:
        saved = shop.backup()["id"]
        assert shop.manage("verify_backups", saved, "--level", "content").returncode == 0
        done = shop.restore(saved)
        refused = shop.manage("restore", saved, "--only", "note", "--no-input", check=False)
        drill = shop.manage("restore_drill")
    finally:
        del shop.backup_settings["SOURCES"]["note"]
        shop.write()
    copied = shop.restore(saved, "--to-media", str(shop.root / "copied"))

    assert done["left_out"] == ["note"]
    assert any("not restored: note" in line for line in done["plan"])
    assert refused.returncode == 1 and "by hand" in refused.stderr
    assert "does not test note" in drill.stderr
    assert copied["status"] == "complete"  # whatever else the backup holds
