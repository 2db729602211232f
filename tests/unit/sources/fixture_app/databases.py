"""Databases of a test's own, read through a snapshot, filled by the project's own commands."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connections, models
from django.db.models import QuerySet

from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Artifact, Source, View
from tests.settings import WORK_DIR

ROOT = Path(__file__).parents[4]
NOT_COMPARED = {
    "admin.LogEntry",
    "auth.Permission",
    "contenttypes.ContentType",
    "sessions.Session",
}


def sqlite_entry(path: Path) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)}


@contextlib.contextmanager
def known(alias: str, entry: dict[str, Any]) -> Iterator[str]:
    """Make `entry` the database `alias` of this process."""
    connections.settings[alias] = connections.configure_settings({"default": {}, alias: entry})[
        alias
    ]
    ContentType.objects.clear_cache()
    try:
        yield alias
    finally:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]
        ContentType.objects.clear_cache()


@contextlib.contextmanager
def migrated(alias: str, entry: dict[str, Any]) -> Iterator[str]:
    """Make `entry` the database `alias` of this process, with all tables."""
    with known(alias, entry):
        if connections[alias].vendor == "sqlite":
            shutil.copyfile(_migrated_file(tuple(settings.INSTALLED_APPS)), entry["NAME"])
        else:
            call_command("migrate", database=alias, verbosity=0)
        yield alias


@functools.cache
def _migrated_file(installed: tuple[str, ...]) -> Path:
    """Return an SQLite database with the tables of the `installed` apps and no rows of theirs."""
    path = WORK_DIR / f"migrated_{secrets.token_hex(6)}.sqlite3"
    with known("template", sqlite_entry(path)):
        call_command("migrate", database="template", verbosity=0)
    return path


class LiveSnapshot:
    """A snapshot of `database`, known as `alias`: a second connection, in one transaction."""

    def __init__(self, alias: str, database: str) -> None:
        self.alias = alias
        self._database = database

    def artifact(self) -> Artifact:
        raise NotImplementedError

    @contextlib.contextmanager
    def reading(self) -> Iterator[str]:
        alias = f"{self._database}_snapshot"
        connection = connections.create_connection(self._database)
        connections[alias] = connection
        try:
            if connection.vendor == "postgresql":
                connection.set_autocommit(False)
                with connection.cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield alias
        finally:
            connection.close()
            del connections[alias]

    def row_counts(self) -> Mapping[str, int]:
        return {}

    def check(self) -> None:
        """Nobody waits."""

    def close(self) -> None:
        """Nothing is open between readings."""


def artifact_of(source: Source, database: str, alias: str = "default") -> Artifact:
    """Return the one artifact of `source`, which takes `database` for `alias`."""
    (artifact,) = source.artifacts(View(snapshots={alias: LiveSnapshot(alias, database)}))
    return artifact


def read_all(reader: Reader, size: int = 65536) -> bytes:
    content = bytearray()
    try:
        while data := reader.read(size):
            content += data
    finally:
        reader.close()
    return bytes(content)


def rows_of(content: bytes, label: str) -> list[dict[str, Any]]:
    """Return the objects of the model `label` in a fixture."""
    rows = [json.loads(line) for line in content.splitlines()]
    return [row for row in rows if row["model"] == label.lower()]


def manage(entry: dict[str, Any], *arguments: str, stdin: bytes | None = None) -> str:
    """Run ``manage.py`` with `arguments` in another deployment, whose database is `entry`."""
    ended = subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        input=stdin,
        capture_output=True,
        cwd=ROOT,
        env=environment(entry),
    )
    assert ended.returncode == 0, ended.stderr.decode()[-3000:]
    return ended.stdout.decode()


def environment(entry: dict[str, Any]) -> dict[str, str]:
    return {
        **os.environ,
        "LC_ALL": "C",
        "DJANGO_SETTINGS_MODULE": "tests.unit.sources.fixture_app.settings",
        "FIXTURE_DATABASE": json.dumps(entry),
        "FIXTURE_APPS": json.dumps(list(settings.INSTALLED_APPS)),
    }


# There are table names that Django makes but does not query on PostgreSQL: those with a "$".
UNREADABLE = ["Django does not read this table"]


def contents(alias: str) -> dict[str, list[str]]:
    """Return every row of every managed model, with natural keys where numbers may differ."""
    natural: dict[Any, Any] = {
        ContentType: {row.pk: row.natural_key() for row in ContentType.objects.using(alias)},
        Permission: {
            pk: tuple(key)
            for pk, *key in Permission.objects.using(alias).values_list(
                "pk", "codename", "content_type__app_label", "content_type__model"
            )
        },
    }
    found: dict[str, list[str]] = {}
    for model in apps.get_models(include_auto_created=True):
        if model._meta.managed and not model._meta.proxy and model._meta.label not in NOT_COMPARED:
            fields = [field for field in model._meta.local_fields if field.concrete]
            rows: Any = QuerySet(model, using=alias).order_by("pk")
            values = rows.values_list(*(field.attname for field in fields))
            try:
                lines = sorted(repr(_plain(row, fields, natural)) for row in values)
            except ValueError as error:
                if "Dollar signs" not in str(error):
                    raise
                lines = UNREADABLE
            found[model._meta.label] = lines
    return found


def _plain(row: Sequence[Any], fields: Sequence[Any], natural: dict[Any, Any]) -> list[Any]:
    plain = []
    for value, field in zip(row, fields, strict=True):
        known_keys = natural.get(field.remote_field.model) if field.remote_field else None
        if known_keys is not None and value is not None:
            value = known_keys[value]
        plain.append(bytes(value) if isinstance(value, memoryview) else value)
    return plain


def numbers(alias: str, model: type[models.Model]) -> set[Any]:
    return set(QuerySet(model, using=alias).values_list("pk", flat=True))
