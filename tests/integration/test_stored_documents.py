"""Documents in the catalog that have another shape than ours: each page is answered all the same.

Other versions wrote some rows, and so may a role that has rights in the database.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import include, path, reverse

from mipyme_backup import api
from mipyme_backup.catalog import Catalog
from mipyme_backup.models import Backup, ChecklistEntry, Copy, Drill, Look, Restore, Task
from tests import past
from tests.integration.asking import logged_in

pytestmark = pytest.mark.django_db
urlpatterns = [path("admin/", admin.site.urls), path("", include("mipyme_backup.urls"))]

GONE = object()
DEEP: list[Any] = []
for _level in range(300):
    DEEP = [DEEP]
ODD: tuple[Any, ...] = (
    GONE,
    None,
    7,
    -1,
    10**30,
    True,
    1.5,
    "x",
    [],
    {},
    [[1]],
    {"a": {"b": [1]}},
    DEEP,
    "1e999",
)
FIELDS: tuple[tuple[Any, str], ...] = (
    (Backup, "manifest"),
    (Backup, "sources"),
    (Backup, "warnings"),
    (Restore, "sources"),
    (Drill, "steps"),
    (Task, "options"),
    (Task, "result"),
    (Look, "document"),
)
EACH = pytest.mark.parametrize("field", FIELDS, ids=lambda field: f"{field[0].__name__}.{field[1]}")


@pytest.fixture
def root(settings: Any) -> Client:
    settings.ROOT_URLCONF = __name__
    settings.MIPYME_BACKUP = {"PROJECT": past.PROJECT, "ADMIN_RESTORE": True}
    settings.MIPYME_BACKUP["DESTINATIONS"] = {
        name: {
            "BACKEND": "mipyme_backup.destinations.LocalDestination",
            "OPTIONS": {"location": f"/nowhere/{name}"},
        }
        for name in ("local", "offsite")
    }
    now = past.now()
    past.past(now, days=2)
    past.tasks(now)
    newest = Backup.objects.filter(status="complete").first()
    found = past.finding("drill_overdue", "warning", "x %(age)s", "y")
    found["message"]["params"]["age"] = {"text": "%(days)d d", "params": {"days": 1}}
    past.looked(now, [found], newest=newest, local={"error": "x"}, offsite={"reachable": False})
    ChecklistEntry.objects.create(
        project=past.PROJECT, action="ticked", line="Call Ana", at=now, by="bea"
    )
    Backup.objects.update(warnings=["a warning"])
    Task.objects.update(options={"destination": "local", "label": "x"})
    return logged_in(User.objects.create_superuser("root"))


@EACH
@pytest.mark.rare
def test_page_of_each_part_in_turn_of_another_shape(root: Client, field: tuple[Any, str]) -> None:
    document = _document(*field)
    for number, way in enumerate(_ways(document)):
        _check(root, field, _changed(document, way, ODD[number % len(ODD)]))


@pytest.mark.torture
@EACH
def test_page_of_all_parts_of_each_shape(
    root: Client,
    field: tuple[Any, str],
    torture_random: random.Random,
    scaled: Callable[[int, int], int],
) -> None:
    document = _document(*field)
    cases = [(way, odd) for way in _ways(document) for odd in ODD]
    for way, odd in torture_random.sample(cases, min(len(cases), scaled(300, 20))):
        _check(root, field, _changed(document, way, odd))


@EACH
def test_page_of_a_document_of_another_shape(root: Client, field: tuple[Any, str]) -> None:
    for odd in ODD[1:]:
        _check(root, field, odd)


def test_finding_that_no_code_of_ours_kept_hides_no_other(root: Client) -> None:
    """Left out, it would be missed: such a look is none."""
    document = _document(Look, "document")
    document["findings"].append({**document["findings"][0], "level": "fine"})
    _write((Look, "document"), json.dumps(document))

    assert [found.id for found in api.last_look().findings] == ["never_looked"]


@pytest.mark.parametrize(
    "text", ["[" * 900 + "]" * 900, "1" * 4299, '{"sources": NaN}', "not JSON"]
)
def test_text_that_the_database_holds(root: Client, text: str) -> None:
    """SQLite takes what Python does not; another program may have written it."""
    for field in FIELDS:
        _write(field, text)
        _check_pages(root, field, text)


WORDS = [
    (model, field.name)
    for model in (Backup, Copy, Restore, Task, ChecklistEntry)
    for field in model._meta.concrete_fields
    if field.choices
]
"""The columns whose words the catalog chooses itself."""


@pytest.mark.parametrize("column", WORDS, ids=lambda column: f"{column[0].__name__}.{column[1]}")
def test_word_of_another_version(root: Client, column: tuple[Any, str]) -> None:
    for word in ("unknown", ""):
        column[0]._default_manager.update(**{column[1]: word})
        _check_pages(root, column, word)


def _document(model: Any, name: str) -> Any:
    rows = model._default_manager.all()
    if model is Task:
        rows = rows.filter(verb="plan")
    if model is Backup:
        rows = rows.filter(status="complete")
    return deepcopy(getattr(rows[0], name))


def _ways(document: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each part, of a list and of many tables to the first."""
    names: Any = [*document][:20] if isinstance(document, dict) else ()
    if "shop_table_00" in names:
        names = names[:1]
    if isinstance(document, list):
        names = range(len(document[:1]))
    for name in names:
        yield (*way, name)
        yield from _ways(document[name], (*way, name))


def _changed(document: Any, way: tuple[Any, ...], odd: object) -> Any:
    changed = deepcopy(document)
    part = changed
    for name in way[:-1]:
        part = part[name]
    if odd is GONE:
        del part[way[-1]]
    else:
        part[way[-1]] = odd
    return changed


def _check(root: Client, field: tuple[Any, str], document: Any) -> None:
    _write(field, json.dumps(document))
    _check_pages(root, field, document)


def _write(field: tuple[Any, str], text: str) -> None:
    """Write as another program does."""
    meta = field[0]._meta
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA ignore_check_constraints = ON")
        cursor.execute(f'UPDATE "{meta.db_table}" SET "{field[1]}" = %s', [text])
        cursor.execute("PRAGMA ignore_check_constraints = OFF")


def _check_pages(root: Client, column: tuple[Any, str], content: object) -> None:
    for address, expected in _addresses(*column).items():
        answer = root.get(address)
        assert answer.status_code in expected, (address, content)
    if column[1] == "manifest":
        Catalog().recorded(past.PROJECT, 10)
    elif column[0] is Backup:
        out = io.StringIO()
        call_command("list_backups", "--json", stdout=out)
        json.loads(out.getvalue())


def _addresses(model: Any, name: str) -> dict[str, set[int]]:
    """Return the pages that show the column, each with what it may answer."""
    health = reverse("admin:mipyme_backup_backuphealth_changelist")
    if model is Look:
        return {health: {200}, "/health": {200, 503}, "/metrics": {200}}
    start = f"admin:mipyme_backup_{model._meta.model_name}"
    found = [] if name == "manifest" else [reverse(f"{start}_changelist")]  # that reads none
    rows = model._default_manager.values_list("pk", flat=True)
    found += [reverse(f"{start}_change", args=[row]) for row in rows[: 5 if model is Task else 2]]
    if name not in {"sources", "warnings", "steps"}:
        found.append(health)
    plan = reverse("admin:mipyme_backup_task_restore", args=[f"{2:016x}"])
    if model is Task:
        found += [reverse("admin:mipyme_backup_task_progress", args=[f"{3:016x}"]), plan]
    over = {302} if name in {"status", "verb"} else set()  # it is no plan any more
    return {address: {200, *over} if address == plan else {200} for address in found}
