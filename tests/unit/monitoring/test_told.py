"""What was told is kept whole and private; what cannot be kept or read stops nobody."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup.monitoring import told
from mipyme_backup.monitoring.told import Records
from mipyme_backup.policy.alerting import Record, Told

NOW = datetime(2025, 1, 10, 3, 0, tzinfo=UTC)
RECORD = Record(
    findings={"disk_low:á b": Told(level="critical", since=NOW, text="Full: ✗", owed=True)},
    digest_at=NOW,
)


def test_record_comes_back_as_it_was(tmp_path: Path) -> None:
    Records(tmp_path / "state").write("mail", RECORD)

    assert Records(tmp_path / "state").read("mail") == RECORD
    assert Records(tmp_path / "state").read("webhook-1") == Record()


def test_files_are_nobody_elses_and_no_temporary_one_stays(tmp_path: Path) -> None:
    records = Records(tmp_path / "state")
    with records.locked("mail"):
        pass
    records.prepare()

    with records.locked("mail") as held:
        records.write("mail", Record())
        records.write("mail", RECORD)

    folder = tmp_path / "state" / "alerts"
    assert held
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {"mail.json": 0o600, "mail.lock": 0o600}


def document(**changes: Any) -> dict[str, Any]:
    entry = {"level": "warning", "since": NOW.isoformat(), "text": "x", "owed": False}
    return {"version": 1, "digest_at": None, "findings": {"a": {**entry, **changes}}}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        "[]",
        "7",
        '"text"',
        "{}",
        "[" * 100_000,
        '{"version": 2, "digest_at": null, "findings": {}}',
        '{"version": 1, "digest_at": "yesterday", "findings": {}}',
        '{"version": 1, "digest_at": "2025-01-10T03:00:00", "findings": {}}',
        '{"version": 1, "digest_at": null, "findings": []}',
        '{"version": 1, "digest_at": null, "findings": {"a": null}}',
        json.dumps(document(level="bad")),
        json.dumps(document(level=[])),
        json.dumps(document(since=7)),
        json.dumps(document(since="2025-01-10T03:00:00")),
        json.dumps(document(text=None)),
        json.dumps(document(owed="no")),
    ],
)
def test_damaged_record_is_one_of_nothing_told(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = Records(tmp_path)
    records.write("mail", RECORD)
    (tmp_path / "alerts" / "mail.json").write_text(content)

    with caplog.at_level(logging.WARNING, logger="mipyme_backup"):
        assert records.read("mail") == Record()

    assert "Alerts may come again" in caplog.text
    records.write("mail", RECORD)
    assert records.read("mail") == RECORD


def test_bytes_that_are_no_text_are_one_of_nothing_told(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write("mail", RECORD)
    (tmp_path / "alerts" / "mail.json").write_bytes(b"\xff\xfe\x00{")

    assert records.read("mail") == Record()


def _file_in_its_place(state: Path) -> None:
    state.write_text("no folder")


def test_record_that_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _file_in_its_place(tmp_path / "state")
    records = Records(tmp_path / "state")

    with caplog.at_level(logging.WARNING, logger="mipyme_backup"):
        records.prepare()
        with records.locked("mail"):
            records.write("mail", RECORD)

    assert "alerts may come again" in caplog.text
    assert records.read("mail") == Record()
    assert [*tmp_path.rglob("*.new")] == []


def test_folder_in_place_of_the_record_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "alerts" / "mail.json").mkdir(parents=True)
    (tmp_path / "alerts" / "mail.json" / "x").touch()
    records = Records(tmp_path)

    records.write("mail", RECORD)

    assert records.read("mail") == RECORD
    assert [path.parent.parent for path in tmp_path.rglob("x")] == [tmp_path / "alerts"]


def test_what_fails_while_the_lock_is_held_is_not_swallowed(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.prepare()

    with pytest.raises(OSError, match="of the caller"):
        with records.locked("mail"):
            raise OSError("of the caller")


def test_one_at_a_time_and_nobody_waits_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(told, "LOCK_SECONDS", 0.3)
    records = Records(tmp_path)
    records.prepare()
    inside = []

    def other(key: str) -> None:
        with records.locked(key) as held:
            inside.append((key, held))

    with records.locked("mail") as held:
        assert held
        for key in ("mail", "webhook-1"):
            thread = threading.Thread(target=other, args=(key,))
            thread.start()
            thread.join()
    other("mail")

    assert inside == [("mail", False), ("webhook-1", True), ("mail", True)]
