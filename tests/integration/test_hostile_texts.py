"""Hostile texts in the catalog: each page is still answered, and a terminal is told no orders."""

from __future__ import annotations

import io
import json
import unicodedata
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client, override_settings
from django.urls import reverse

from mipyme_backup import api
from mipyme_backup.management.console import SafeConsole
from mipyme_backup.models import Backup, ChecklistEntry, Copy, Drill, Look, Restore, Task
from mipyme_backup.printable import ESCAPED
from tests import hostile, past
from tests.integration.asking import logged_in

pytestmark = pytest.mark.django_db

MODELS: tuple[Any, ...] = (Backup, Copy, Restore, Drill, Task, ChecklistEntry)


@pytest.fixture
def spoilt(settings: Any) -> None:
    settings.MIPYME_BACKUP = {"PROJECT": past.PROJECT, "ADMIN_RESTORE": True}
    now = past.now()
    past.past(now, days=12)
    past.tasks(now)
    newest = Backup.objects.filter(status="complete").first()
    found = past.finding("drill_overdue", "warning", "x", "y")
    past.looked(now, [found], newest=newest, local={"error": "x"}, offsite={"reachable": False})
    ChecklistEntry.objects.create(
        project=past.PROJECT, action="ticked", line="Call Ana", at=now, by="bea"
    )
    assert hostile.spoil(keep=frozenset({"project"})) > 200


@pytest.fixture
def root() -> Client:
    return logged_in(User.objects.create_superuser("root"))


@pytest.mark.parametrize("language", ["en", "es"])
def test_each_page_is_answered(spoilt: None, root: Client, language: str) -> None:
    with override_settings(LANGUAGE_CODE=language):
        for address in addresses():
            answer = root.get(address)

            assert answer.status_code == 200, address
            text = answer.content.decode()
            if answer["Content-Type"] == "application/json":
                text = answer.json()["fragment"]
            assert f" data-{hostile.FLAG}>" not in text.replace("&gt;", "&"), address
            assert f"<script>window.{hostile.FLAG}" not in text, address
            assert "django-insecure" not in text and "for tests only" not in text, address


def test_list_on_a_terminal(spoilt: None) -> None:
    for width in (80, 200):
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", str(width))
            call_command("list_backups", stdout=out)

        assert _orders(out.getvalue()) == set()


def test_colours_of_the_terminal_are_rich_s_alone() -> None:
    out = io.StringIO()
    console = SafeConsole(
        file=out, force_terminal=True, color_system="standard", width=80, highlight=False
    )

    console.print("[red]x\x1b[2J\x9b\u202e[/]")

    assert out.getvalue() == "\x1b[31mx\\x1b[2J\\x9b\\u202e\x1b[0m\n"


def test_list_as_json(spoilt: None) -> None:
    out = io.StringIO()
    call_command("list_backups", "--json", stdout=out)

    assert out.getvalue().isascii()
    assert len(json.loads(out.getvalue())) == Backup.objects.count()


def test_any_database_takes_the_texts(spoilt: None) -> None:
    """PostgreSQL refuses NUL and lone surrogates, in texts and in documents."""
    row = Backup.objects.filter(error__contains="nul").first() or Backup.objects.first()
    assert row is not None
    Backup.objects.filter(pk=row.pk).update(error="a\x00b\udcff", manifest={"\x00": "\udcff"})
    row.refresh_from_db()

    assert (row.error, row.manifest) == ("a\\x00b\\udcff", {"\\x00": "\\udcff"})


def test_search_and_filters(spoilt: None, root: Client) -> None:
    for model in MODELS:
        address = reverse(f"admin:mipyme_backup_{model._meta.model_name}_changelist")
        for text in hostile.ALL:
            if "\udcff" not in text:
                answer = root.get(address, {"q": text})
                assert answer.status_code == 200, (model, text)


def addresses(*, rows: int = 12) -> list[str]:
    """Return those of all pages of the catalog, and of rows of each kind."""
    found = [reverse("admin:index"), reverse("admin:mipyme_backup_backuphealth_changelist")]
    for model in MODELS:
        name = f"admin:mipyme_backup_{model._meta.model_name}"
        found.append(reverse(f"{name}_changelist"))
        for row in model._default_manager.all()[:rows]:
            found += [reverse(f"{name}_{page}", args=[row.pk]) for page in ("change", "history")]
    for task in Task.objects.all():
        found.append(reverse("admin:mipyme_backup_task_progress", args=[task.pk]))
    return found


def _orders(text: str) -> set[str]:
    return {one for one in text if one != "\n" and unicodedata.category(one) in ESCAPED}


@pytest.mark.parametrize(
    "document",
    [
        [],
        "x",
        {"version": 1},
        {"version": 1, "facts": [], "findings": []},
        {"version": 1, "facts": {"at": "x"}, "findings": []},
        {"version": 1, "facts": {"at": "2026-01-01"}, "findings": [{"id": "x"}]},
        {
            "version": 1,
            "facts": {"at": "2026-01-01T00:00:00Z", "last_run": None, "destinations": {}},
            "findings": [
                past.finding("x", "ok", "x", "y")
                | {"message": {"text": "%(a)s", "params": {"b": 1}}}
            ],
        },
    ],
)
def test_look_that_no_code_of_ours_kept(spoilt: None, root: Client, document: Any) -> None:
    Look.objects.update(document=document)

    assert root.get(addresses()[1]).status_code == 200
    assert [found.id for found in api.last_look().findings] == ["never_looked"]
