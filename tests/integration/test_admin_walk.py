"""Every address of the admin by every method, with odd identifiers, and rows of other projects."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django.urls import include, path, reverse

from mipyme_backup import api
from mipyme_backup.models import Backup, Copy, Task
from tests import past, settings
from tests.integration import test_admin_roles as roles
from tests.integration.asking import ASK, PASSWORD, ask, backup_page, logged_in, text_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_shop")]

_shop = roles._shop
urlpatterns = [path("admin/", admin.site.urls), path("", include("mipyme_backup.urls"))]
OURS = ("backuphealth_", "_ask", "_restore", "_progress")
"""The views that we wrote: each takes its own methods and no other."""

UNSAFE = ("post", "put", "patch", "delete")
NO_FRAMES = [one for one in settings.MIDDLEWARE if "XFrameOptions" not in one]
IDENTIFIERS = (
    "0",
    "-1",
    "9" * 15,
    "9" * 400,
    "x",
    "%00",
    "..%2f..",
    "%F0%9F%A6%86",
    "_5F",
    "%C2%B2",  # a digit that is no number
    "' OR 1=1 --",
    "x" * 3000,
)
QUERIES = (
    {"q": "\x00"},
    {"p": "9" * 30},
    {"p": "-1"},
    {"o": "99.x"},
    {"all": ""},
    {"e": "1"},
    {"status__exact": "\x00"},
    {"pk__in": "x"},
    {"password__startswith": "p"},
    {"backup__manifest__project": "x"},
    {"_popup": "1"},
    {"_to_field": "manifest"},
)


def _names() -> list[str]:
    return sorted({row[0] for row in roles.TABLE})


def _get_of(name: str, role: str) -> object:
    """Return what the role is answered by GET, as the table of roles has it."""
    row = next(row for row in roles.TABLE if row[:2] == (name, "get"))
    return row[3][roles.ROLES.index(role)]


@pytest.mark.parametrize("role", roles.ROLES)
def test_other_methods(role: str) -> None:
    """HEAD is as GET; our own views refuse the rest, and Django's take them for a GET."""
    client, before = roles._client(role), roles._everything()

    found = {
        (name, method): roles._answer(client, (name, method, {}, ()))
        for name in _names()
        for method in ("head", "options", "put", "patch", "delete")
    }

    refused = roles.LOGIN if role == "anonymous" else roles.NO_SUCH_WAY
    assert found == {
        (name, method): refused
        if method != "head" and any(part in name for part in OURS)
        else _get_of(name, role)
        for name, method in found
    }
    assert roles._everything() == before


@pytest.mark.parametrize("role", roles.ROLES)
def test_nothing_is_changed_without_the_token(role: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.cookies = roles._client(role).cookies
    before = roles._everything()

    found = {
        (name, method): getattr(client, method)(roles._address(name), sent).status_code
        for name, _method, sent, _expected in roles.TABLE
        for method in UNSAFE
    }

    assert set(found.values()) == {403}
    assert roles._everything() == before


def test_no_page_is_kept_or_framed(settings: Any) -> None:
    """A project may lack the middleware that forbids frames: a button in one can be stolen."""
    settings.MIDDLEWARE = NO_FRAMES
    client = roles._client("superuser")

    for name, method, sent, _expected in roles.TABLE:
        answer = getattr(client, method)(roles._address(name), roles._sent(name, sent))
        if answer.status_code != 403:
            assert "no-store" in answer["Cache-Control"], name
            assert answer["X-Frame-Options"] == "DENY", name


@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_identifier_of_no_row(identifier: str) -> None:
    client, before = roles._client("superuser"), roles._everything()

    for model in roles.LISTED:
        start = reverse(f"admin:mipyme_backup_{model}_changelist")
        for page in ("change", "history", "delete", "ask", "progress", "restore"):
            for method in (client.get, client.post):
                answer = method(f"{start}{identifier}/{page}/", {"verb": "verify"})
                assert answer.status_code in {302, 403, 404, 405}, (model, page)

    assert roles._everything() == before


@pytest.mark.parametrize("model", roles.LISTED)
def test_odd_queries_of_a_list(model: str) -> None:
    client = roles._client("superuser")
    for query in QUERIES:
        answer = client.get(reverse(f"admin:mipyme_backup_{model}_changelist"), query)
        assert answer.status_code in {200, 302, 400}, query


@pytest.mark.parametrize("given", [{"TYPO": 1}, {"PROJECT": 7}, {"DESTINATIONS": {}}, None])
def test_settings_that_cannot_be_read(given: Any, settings: Any) -> None:
    """Each page says so, or shows the rows that the catalog has."""
    settings.MIPYME_BACKUP = given
    settings.ROOT_URLCONF = __name__
    client = roles._client("superuser")
    before = roles._everything()

    for name, method, sent, _expected in roles.TABLE:
        answer = getattr(client, method)(roles._address(name), roles._sent(name, sent))
        assert answer.status_code < 500, (name, method)
    for page in ("/health", "/metrics"):
        answer = client.get(page)
        assert answer.status_code == 503 and "MIPYME_BACKUP" in answer.json()["error"]["message"]

    assert len(before) == len(roles._everything())


class TestOfAnotherProject:
    """Two projects may share a catalog: each sees the other's rows, and does nothing with them."""

    def test_no_button_is_offered(self) -> None:
        root = logged_in(User.objects.create_superuser("ana", password=PASSWORD))
        ours = text_of(root.get(backup_page()))
        Backup.objects.update(project="another")
        theirs = text_of(root.get(backup_page()))

        assert 'name="verb"' in ours
        assert 'name="verb"' not in theirs and 'name="complete"' not in theirs

    @pytest.mark.parametrize("verb", ["verify", "drill", "pin", "unpin", "plan", "complete"])
    def test_forged_form_is_refused(self, verb: str) -> None:
        root = logged_in(User.objects.create_superuser("ana", password=PASSWORD))
        Backup.objects.update(project="another")
        Copy.objects.update(status="failed")

        answer = ask(root, verb)

        assert answer.status_code == 403
        assert Task.objects.count() == 1

    def test_plan_that_another_project_made(self) -> None:
        """Its page would lead on to a restore of a backup that is not ours."""
        root = logged_in(User.objects.create_superuser("ana", password=PASSWORD))
        Backup.objects.update(project="another")
        task = Task.objects.get()

        answer = root.get(reverse("admin:mipyme_backup_task_restore", args=[task.task_id]))
        page = text_of(root.get(reverse("admin:mipyme_backup_task_change", args=[task.task_id])))

        assert answer.status_code == 302
        assert "Go on to the restore" not in page

    def test_task_of_another_project(self) -> None:
        """A worker that shares the broker leaves it, and the health page does not follow it."""
        root = logged_in(User.objects.create_superuser("ana", password=PASSWORD))
        root.post(ASK, {"verb": "backup"})
        Task.objects.filter(verb="backup").update(project="another")
        theirs = Task.objects.get(verb="backup")

        done = api.run_task(task_id=theirs.task_id)
        health = text_of(root.get(reverse("admin:mipyme_backup_backuphealth_changelist")))

        assert done is None
        assert theirs.task_id not in health
        theirs.refresh_from_db()
        assert theirs.status == "queued"

    def test_same_task_of_two_projects(self, settings: Any) -> None:
        root = logged_in(User.objects.create_superuser("ana", password=PASSWORD))
        root.post(ASK, {"verb": "backup"})
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "PROJECT": "another"}
        root.post(ASK, {"verb": "backup"})

        found = Task.objects.filter(verb="backup").values_list("project", flat=True)
        assert {*found} == {past.PROJECT, "another"}

    def test_plan_whose_task_is_another_project_s(self) -> None:
        root = logged_in(User.objects.create_superuser("ana", password=PASSWORD))
        Task.objects.update(project="another")
        task = Task.objects.get()

        answer = root.get(reverse("admin:mipyme_backup_task_restore", args=[task.task_id]))

        assert answer.status_code == 302

    def test_row_of_a_run_whose_project_is_not_known(self) -> None:
        """Older versions did not note it of a run that failed: it is taken for ours."""
        root = logged_in(User.objects.create_superuser("ana", password=PASSWORD))
        Backup.objects.update(project="")

        assert 'name="verb"' in text_of(root.get(backup_page()))


def test_projects_in_the_table_are_ours() -> None:
    assert set(Backup.objects.values_list("project", flat=True)) == {past.PROJECT}
