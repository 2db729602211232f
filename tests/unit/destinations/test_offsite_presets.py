"""The presets of docs/howto/offsite.md are settings that work, and policies that can be read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.utils.module_loading import import_string

from mipyme_backup import conf, destinations

TEXT = (Path(__file__).parents[3] / "docs" / "howto" / "offsite.md").read_text()
BLOCKS = re.findall(r"^## (.*?)$.*?^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
(FIRST,) = re.findall(r"\A.*?^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
FAMILIES = {
    "AWS S3": "S3Access",
    "Backblaze B2": "S3Access",
    "MinIO, and other services like S3": "S3Access",
    "SFTP": "SFTPAccess",
}


def loaded(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _code in BLOCKS])
def test_preset_is_built(
    settings: Any, monkeypatch: pytest.MonkeyPatch, title: str, code: str
) -> None:
    monkeypatch.setenv("BACKUP_ACCESS_KEY", "access")
    monkeypatch.setenv("BACKUP_SECRET_KEY", "secret")
    settings.STORAGES = loaded(code)["STORAGES"]
    settings.MIPYME_BACKUP = loaded(FIRST)["MIPYME_BACKUP"]

    part = conf.load().destinations["offsite"]
    destination = import_string(part.backend)(**part.options)

    assert isinstance(destination, destinations.StorageDestination)
    assert destination.remote
    assert type(destination._access).__name__ == FAMILIES[title]


@pytest.mark.parametrize("title", ["AWS S3", "Backblaze B2", "MinIO, and other services like S3"])
def test_client_of_a_preset_can_be_made(
    settings: Any, monkeypatch: pytest.MonkeyPatch, title: str
) -> None:
    monkeypatch.setenv("BACKUP_ACCESS_KEY", "access")
    monkeypatch.setenv("BACKUP_SECRET_KEY", "secret")
    settings.STORAGES = loaded(dict(BLOCKS)[title])["STORAGES"]

    access: Any = destinations.StorageDestination(storage="offsite")._access
    access.prepare()

    asked = access._write_options("manifest.json").get("ChecksumAlgorithm")
    assert asked == (None if title == "Backblaze B2" else "SHA256")


def test_every_preset_is_looked_at() -> None:
    assert {title for title, _code in BLOCKS} == FAMILIES.keys()


def test_policies_allow_no_deletion() -> None:
    for policy in re.findall(r"^```json\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE):
        actions = [action for rule in json.loads(policy)["Statement"] for action in rule["Action"]]

        assert {"s3:PutObject", "s3:GetObject", "s3:ListBucket"} <= {*actions}
        assert not [action for action in actions if "Delete" in action or "*" in action]
