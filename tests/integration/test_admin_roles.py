"""Who may do what: each role at each address of the admin, reading and sending."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import celery
import pytest
from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import get_resolver, reverse

from mipyme_backup.models import Backup, ChecklistEntry, Task
from tests import past
from tests.integration.asking import PASSWORD, REASON, logged_in, staff

pytestmark = pytest.mark.django_db

LOGIN, FORBIDDEN, SEEN, DONE, NO_SUCH_WAY = "login", 403, 200, 302, 405
PLAN = "0123456789abcdef"
READ = (LOGIN, FORBIDDEN, SEEN, SEEN, SEEN)
ROLES = ("anonymous", "staff", "viewer", "operator", "superuser")
OPERATOR = ("run_backup", "verify_backup", "run_drill", "pin_backup", "change_backuphealth")

Row = tuple[str, str, dict[str, str], tuple[object, ...]]
"""An address by its name in the admin, the method, what is sent, and what each role is answered."""

LISTED = ("backup", "copy", "restore", "drill", "task", "checklistentry")
NOBODY = (LOGIN, FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN)
OPERATORS = (LOGIN, FORBIDDEN, FORBIDDEN, DONE, DONE)
ROOT = (LOGIN, FORBIDDEN, FORBIDDEN, FORBIDDEN, DONE)

TABLE: list[Row] = [
    ("backuphealth_changelist", "get", {}, READ),
    ("backuphealth_changelist", "post", {}, (LOGIN, *[NO_SUCH_WAY] * 4)),
    ("backuphealth_checklist", "get", {}, (LOGIN, *[NO_SUCH_WAY] * 4)),
    ("backuphealth_checklist", "post", {"began": "1"}, OPERATORS),
    ("backuphealth_ask", "get", {"verb": "backup"}, (LOGIN, *[NO_SUCH_WAY] * 4)),
    *[("backuphealth_ask", "post", {"verb": verb}, OPERATORS) for verb in ("backup", "verify")],
    ("backuphealth_ask", "post", {"verb": "drill"}, OPERATORS),
    ("backup_ask", "get", {"verb": "verify"}, (LOGIN, *[NO_SUCH_WAY] * 4)),
    *[
        ("backup_ask", "post", sent, OPERATORS)
        for sent in (
            {"verb": "verify"},
            {"verb": "drill"},
            {"verb": "pin"},
            {"verb": "unpin"},
            {"complete": "local"},
        )
    ],
    ("backup_ask", "post", {"verb": "plan"}, ROOT),
    ("task_restore", "get", {}, (LOGIN, FORBIDDEN, FORBIDDEN, FORBIDDEN, SEEN)),
    ("task_restore", "post", {"password": PASSWORD, "reason": REASON}, ROOT),
    ("task_progress", "get", {}, READ),
    ("task_progress", "post", {}, (LOGIN, *[NO_SUCH_WAY] * 4)),
    *[(f"{name}_changelist", "get", {}, READ) for name in LISTED],
    *[(f"{name}_change", "get", {}, READ) for name in LISTED],
    *[(f"{name}_add", method, {}, NOBODY) for name in LISTED for method in ("get", "post")],
    *[(f"{name}_delete", method, {}, NOBODY) for name in LISTED for method in ("get", "post")],
    *[
        (f"{name}_change", "post", {"status": "complete"}, NOBODY)
        for name in LISTED
        if name != "drill"
    ],
    ("drill_change", "post", {"notes": "Mended."}, ROOT),
    *[(f"{name}_history", "get", {}, READ) for name in LISTED],
]


@pytest.fixture(autouse=True)
def _shop(settings: Any, broker: celery.Celery) -> None:
    """A project with one of each row, whose admin may restore."""
    settings.MIPYME_BACKUP = {"PROJECT": past.PROJECT, "ADMIN_RESTORE": True}
    now = past.now()
    past.past(now, days=40)
    ChecklistEntry.objects.create(
        project=past.PROJECT, action="ticked", line="Call Ana", at=now, by="bea"
    )
    backup = Backup.objects.filter(status="complete").first()
    assert backup is not None
    Task.objects.create(
        task_id=PLAN,
        verb="plan",
        status="complete",
        backup_id=backup.backup_id,
        backup_name=backup.name,
        asked_by="bea",
        asked_at=now,
        finished_at=datetime.now(UTC),
    )


@pytest.mark.parametrize("role", ROLES)
def test_role_at_each_address(role: str) -> None:
    client = _client(role)
    index = ROLES.index(role)

    found = [_answer(client, row) for row in TABLE]

    assert {_name(row): answer for row, answer in zip(TABLE, found, strict=True)} == {
        _name(row): row[3][index] for row in TABLE
    }


@pytest.mark.parametrize("role", ROLES)
def test_reading_changes_nothing(role: str) -> None:
    client = _client(role)
    before = _everything()

    for row in TABLE:
        if row[1] == "get":
            _answer(client, row)

    assert _everything() == before


def test_table_is_whole() -> None:
    """No address of ours is without a row."""
    names = {
        name
        for name in get_resolver().namespace_dict["admin"][1].reverse_dict
        if isinstance(name, str) and name.startswith("mipyme_backup_")
    }

    assert {f"mipyme_backup_{row[0]}" for row in TABLE} == names


def _client(role: str) -> Client:
    if role == "anonymous":
        return Client()
    if role == "superuser":
        return logged_in(User.objects.create_superuser("root", password=PASSWORD))
    views = Permission.objects.filter(
        content_type__app_label="mipyme_backup", codename__startswith="view_"
    ).values_list("codename", flat=True)
    rights = {"staff": (), "viewer": views, "operator": (*views, *OPERATOR)}
    return staff(*rights[role])


def _answer(client: Client, row: Row) -> object:
    name, method, sent, _expected = row
    answer = getattr(client, method)(_address(name), _sent(name, sent))
    location = answer.headers.get("Location", "")
    return LOGIN if location.startswith("/admin/login/") else answer.status_code


def _address(name: str) -> str:
    model = name.partition("_")[0]
    if model == "backuphealth" or name.endswith(("_changelist", "_add")):
        return reverse(f"admin:mipyme_backup_{name}")
    return reverse(f"admin:mipyme_backup_{name}", args=[_rows(model)[0].pk])


def _rows(model: str) -> Any:
    """Return rows of a model of which the first is the one that is asked about."""
    rows = apps.get_model("mipyme_backup", model)._default_manager.all()
    if model == "task":
        return rows.filter(task_id=PLAN)
    return rows.filter(status="complete") if model in ("backup", "copy") else rows


def _sent(name: str, sent: dict[str, str]) -> dict[str, str]:
    """Return what is sent, with the name of the backup where that is typed."""
    if "password" not in sent:
        return sent
    return {**sent, "name": Task.objects.get(task_id=PLAN).backup_name}


def _name(row: Row) -> str:
    return f"{row[1]} {row[0]} {row[2]}"


def _everything() -> list[Any]:
    models = apps.get_app_config("mipyme_backup").get_models()
    return [[*model._default_manager.order_by("pk").values()] for model in models]
