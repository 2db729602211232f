"""A project with USE_TZ = False: each command and each page works, and shows local times."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.e2e.project import Project, postgresql_project, sqlite_project
from tests.services import PostgreSQLServer

ZONE = "Asia/Kathmandu"
"""UTC+05:45 the whole year: no hour and no minute of it is taken for one of UTC."""

NAIVE = f"""
USE_TZ = False
TIME_ZONE = {ZONE!r}
"""
ADMIN = """
INSTALLED_APPS += ["django.contrib.admin", "django.contrib.messages"]
ALLOWED_HOSTS = ["*"]
STATIC_URL = "static/"
MIPYME_BACKUP["ADMIN_RESTORE"] = True
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
"""
URLS = """
from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("", include("mipyme_backup.urls"))]
"""
FILL = """
from django.contrib.auth.models import User
User.objects.create_superuser("ana")
"""
PAGES = """
import json, sys
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from mipyme_backup import models

client, found = Client(), {}
client.force_login(User.objects.get(username="ana"))
lists = ("backup", "copy", "restore", "drill", "task", "backuphealth")
pages = ["/health", "/metrics"]
for name in lists:
    start = reverse(f"admin:mipyme_backup_{name}_changelist")
    pages.append(start)
    if name != "backuphealth":
        model = getattr(models, name.capitalize())
        pages += [
            reverse(f"admin:mipyme_backup_{name}_change", args=[getattr(row, "task_id", row.pk)])
            for row in model.objects.all()
        ]
    if name == "backup":
        pages += [start + "?started_at__gte=2020-01-01", start + "?started_at__year=2020"]
    if name == "copy":
        pages += [start + "?verified_at__isnull=True", start + "?verified_at__gte=2020-01-01"]
for page in pages:
    answer = client.get(page)
    found[page] = [answer.status_code, answer.content.decode()]
print(json.dumps(found))
"""
TASKS = """
import json
from datetime import datetime, UTC
from mipyme_backup import api
from mipyme_backup.catalog.tasks import Asked, add
from mipyme_backup.models import Backup

backup = Backup.objects.filter(kind="manual").first()
named = {"backup_id": backup.backup_id, "backup_name": backup.name}
done = {}
for verb in ("backup", "verify", "drill", "pin", "unpin", "plan"):
    of = {} if verb == "backup" else named
    task = add(Asked(verb=verb, asked_by="ana", **of), datetime.now(UTC))
    done[verb] = api.run_task(task_id=task.task_id)
print(json.dumps(done))
"""

AUTUMN = ["2025-10-26T00:30:00+00:00", "2025-10-26T01:30:00+00:00"]
"""Both are 2:30 in Madrid."""
KEEP = f"""
from datetime import datetime
from mipyme_backup.models import Backup
for number, text in enumerate({AUTUMN!r}):
    at = datetime.fromisoformat(text)
    Backup.objects.create(backup_id=f"{{number:016x}}", name=text, status="failed", started_at=at,
        finished_at=at, slot=at)
"""


pytestmark = pytest.mark.rare


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shop(
    request: pytest.FixtureRequest,
    postgresql_server: PostgreSQLServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp(request.param)
    with (
        sqlite_project(folder / "shop")
        if request.param == "sqlite"
        else postgresql_project(folder / "shop", postgresql_server)
    ) as project:
        project.more_settings = NAIVE + ADMIN
        project.write()
        (project.root / "config/urls.py").write_text(URLS)
        project.manage("migrate", "--verbosity=0")
        project.manage("shell", "-c", FILL)
        project.media.mkdir()
        (project.media / "picture").write_text("before")
        yield project


def is_now(text: str) -> bool:
    """Say whether it is a moment of the last minutes, with its offset."""
    moment = datetime.fromisoformat(text)
    return abs(datetime.now(UTC) - moment) < timedelta(minutes=10)


def users(project: Project) -> list[tuple[Any, ...]]:
    return project.execute("SELECT username, date_joined FROM auth_user ORDER BY 1")


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(ZoneInfo(ZONE))


def test_each_command_and_each_page(shop: Project) -> None:
    """In one go: what each leaves in the catalog is what the pages show in the end."""
    made = shop.backup()
    assert made["status"] == "complete", made
    assert is_now(made["started_at"]) and is_now(made["finished_at"])

    (row,) = shop.json("list_backups")
    assert row["id"] == made["id"] and is_now(row["started_at"]) and is_now(row["finished_at"])
    shown = f"{local(row['started_at']):%Y-%m-%d %H:%M}"
    assert shown in shop.manage("list_backups").stdout
    assert [found["id"] for found in shop.json("list_backups", "--sync")] == [made["id"]]

    verified = shop.json("verify_backups", "--all", "--level", "content")
    assert [copy["problems"] for copy in verified] == [[]]
    shop.manage("pin_backup", made["id"])
    shop.manage("pin_backup", made["id"], "--remove")

    before = users(shop)
    shop.execute("DELETE FROM auth_user")
    moment = f"{datetime.now(ZoneInfo(ZONE)):%Y-%m-%d %H:%M:%S}"
    assert made["name"] in shop.manage("restore", "--at", moment, "--plan").stdout
    restored = shop.restore("--latest")
    assert restored["status"] == "complete" and users(shop) == before
    shop.restore("--undo")
    assert users(shop) == []
    shop.restore(made["id"], "--only", "fixtures")
    assert users(shop) == before

    drilled = shop.json("restore_drill")
    assert drilled["passed"], drilled
    shop.manage("schedule_backups", "run-due")
    assert f"Times are in {ZONE}" in shop.manage("schedule_backups", "show").stdout
    shop.manage("prune_backups", "--json")
    status = shop.manage("backup_status", "--json", check=False)
    facts = json.loads(status.stdout)["facts"]
    assert is_now(facts["at"]) and facts["last_drill"]["passed"]

    done = json.loads(shop.manage("shell", "-v0", "-c", TASKS).stdout)
    assert set(done.values()) == {"complete"}, done
    pages = json.loads(shop.manage("shell", "-v0", "-c", PAGES).stdout)
    assert {page: code for page, (code, _text) in pages.items() if code != 200} == {}
    texts = [text for page, (_code, text) in pages.items() if "/backup/" in page]
    for row in shop.json("list_backups"):
        shown = f"{local(row['started_at']):%m/%d/%Y %-I:%M}"
        assert any(row["id"] in text and shown in text for text in texts), row


def test_restore_on_a_bare_host(shop: Project, workdir: Path) -> None:
    shop.backup()
    host = shop.bare_host(workdir / "host")
    host.create_database()

    restored = host.restore("--latest")

    assert restored["status"] == "complete"
    assert all(is_now(row["started_at"]) for row in host.json("list_backups"))


@pytest.mark.parametrize("before", [True, False])
def test_project_that_changes_its_mind(shop: Project, before: bool, workdir: Path) -> None:
    project = shop.clone(workdir)

    def settle(use_tz: bool, zone: str = "Europe/Madrid") -> None:
        project.more_settings = f"USE_TZ = {use_tz}\nTIME_ZONE = {zone!r}\n" + ADMIN
        project.write()

    def moments() -> list[str]:
        return [row["started_at"] for row in reversed(project.json("list_backups"))]

    settle(use_tz=before)
    project.manage("shell", "-v0", "-c", KEEP)
    kept = moments()
    assert kept[:2] == AUTUMN

    settle(use_tz=not before)
    assert moments() == kept
    project.backup()
    settle(use_tz=before, zone=ZONE)
    assert moments()[:-1] == kept
    assert is_now(moments()[-1])
