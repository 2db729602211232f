"""A project to back up by the Python API: a database, a media folder, a destination."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import connection

from mipyme_backup.encryption import program
from mipyme_backup.policy import status, status_destinations, status_runs
from tests import cheap_keys
from tests.integration import asking

LOCAL = "mipyme_backup.destinations.LocalDestination"


@pytest.fixture(scope="module", autouse=True)
def _keys_are_cheap() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "SYMMETRIC", cheap_keys.SYMMETRIC)
        yield


@pytest.fixture(autouse=True)
def _is_set_up_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge the projects of these tests as if they had a copy elsewhere and a running schedule.

    They have one folder, and travel in time. The modules that are about the two rules define a
    fixture of this name that leaves these in.
    """
    standing = {status_destinations.all_here, status_runs.silent}
    rules = tuple(rule for rule in status.RULES if rule not in standing)
    assert len(rules) == len(status.RULES) - len(standing)
    monkeypatch.setattr(status, "RULES", rules)


@pytest.fixture
def database(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The test database without Django's test case: that forbids the one beside, of a restore."""
    with django_db_blocker.unblock():
        if not connection.introspection.table_names():  # no test of this run asked for it by a mark
            call_command("migrate", verbosity=0)
        yield
        call_command("flush", interactive=False, verbosity=0)


@pytest.fixture
def backups(database: None, settings: Any, workdir: Path) -> Path:
    """The folder of the one destination; a row and a file are there to be saved."""
    settings.MEDIA_ROOT = str(workdir / "media")
    passphrase = workdir / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("correct horse battery staple\n")
    settings.MIPYME_BACKUP = {
        "DESTINATIONS": {"local": {"BACKEND": LOCAL, "OPTIONS": {"location": workdir / "backups"}}},
        "STATE_DIR": workdir / "state",
        "ENCRYPTION": {
            "BACKEND": "mipyme_backup.encryption.GPG",
            "OPTIONS": {"passphrase_file": passphrase},
        },
    }
    Group.objects.create(name="before")
    (workdir / "media").mkdir()
    (workdir / "media" / "picture").write_text("before")
    return workdir / "backups"


@pytest.fixture
def broker() -> Iterator[celery.Celery]:
    """Celery's broker within this process; `asking.messages` empties it."""
    before = celery.current_app._get_current_object()  # type: ignore[attr-defined]
    with celery.Celery("tests", broker="memory://", set_as_current=True) as app:
        asking.messages(app)
        yield app
    before.set_current()
