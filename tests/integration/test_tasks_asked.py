"""What people ask for in the admin: who may, what is kept, and what they are shown of it."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import celery
import pytest
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import User
from django.core.management import load_command_class
from django.core.signals import got_request_exception
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils.html import escape
from django.views.debug import ExceptionReporter
from django.views.decorators.debug import sensitive_variables

from mipyme_backup.admin.by_hand import command
from mipyme_backup.models import Backup, Task
from tests import past
from tests.integration.asking import (
    ASK,
    PASSWORD,
    ask,
    backup_page,
    filled,
    logged_in,
    page_of,
    progress_of,
    restore_page,
    staff,
    text_of,
)
from tests.integration.test_admin_health import HOSTILE, PAGE

pytestmark = pytest.mark.django_db

RIGHTS = {
    "backup": "run_backup",
    "complete": "run_backup",
    "verify": "verify_backup",
    "drill": "run_drill",
    "pin": "pin_backup",
    "unpin": "pin_backup",
    "plan": "restore_backup",
}


@pytest.fixture(autouse=True)
def _shop(settings: Any, broker: celery.Celery) -> None:
    """A project with a past, whose admin may restore, and a broker."""
    settings.MIPYME_BACKUP = {"PROJECT": past.PROJECT, "ADMIN_RESTORE": True}
    past.past(past.now(), days=1)


@pytest.fixture
def root() -> Client:
    return logged_in(User.objects.create_superuser("root", password=PASSWORD))


class TestWho:
    """The matrix: anonymous, staff, viewer, one for each right, superuser."""

    @pytest.mark.parametrize("verb", RIGHTS)
    def test_anonymous_is_asked_to_log_in(self, verb: str) -> None:
        answer = ask(Client(), verb)

        assert answer["Location"].startswith("/admin/login/")
        assert not Task.objects.exists()

    @pytest.mark.parametrize("verb", RIGHTS)
    @pytest.mark.parametrize("right", [None, *sorted({*RIGHTS.values()})])
    def test_each_right_allows_its_own(self, verb: str, right: str | None) -> None:
        client = staff("view_backuphealth", "view_backup", *([right] if right else []))

        answer = ask(client, verb)

        allowed = right == RIGHTS[verb]
        assert answer.status_code == (302 if allowed else 403)
        assert [task.verb for task in Task.objects.all()] == ([verb] if allowed else [])

    @pytest.mark.parametrize("verb", RIGHTS)
    def test_superuser_may_ask_for_all(self, root: Client, verb: str) -> None:
        answer = ask(root, verb)

        task = Task.objects.get()
        assert answer["Location"] == f"/admin/mipyme_backup/task/{task.task_id}/change/"
        assert (task.verb, task.status, task.asked_by) == (verb, "queued", "root")

    def test_tasks_are_seen_by_who_may_ask(self, root: Client) -> None:
        ask(root, "verify")
        task = Task.objects.get()
        pages = [reverse("admin:mipyme_backup_task_changelist"), page_of(task), progress_of(task)]

        for right, status in {"view_task": 200, "run_drill": 200, "view_backup": 403}.items():
            client = staff(right)
            assert [client.get(page).status_code for page in pages] == [status] * 3
        for page in pages:
            assert Client().get(page)["Location"].startswith("/admin/login/")

    def test_buttons_are_there_for_who_may(self) -> None:
        viewer = staff("view_backuphealth", "view_backup")
        operator = staff("view_backuphealth", "view_backup", "run_backup", "pin_backup")

        assert 'name="verb"' not in text_of(viewer.get(PAGE)) + text_of(viewer.get(backup_page()))
        assert 'value="backup"' in text_of(operator.get(PAGE))
        assert 'value="drill"' not in text_of(operator.get(PAGE))
        page = text_of(operator.get(backup_page()))
        assert 'value="pin"' in page
        assert 'value="unpin"' not in page and 'value="plan"' not in page

    def test_reading_changes_nothing(self, root: Client) -> None:
        ask(root, "plan")
        task = Task.objects.get()
        before = [*Task.objects.values()]

        for address in (ASK, f"{backup_page()[: -len('change/')]}ask/"):
            assert root.get(f"{address}?verb=backup").status_code == 405
        for address in (PAGE, page_of(task), progress_of(task), restore_page(task)):
            root.get(address)

        assert [*Task.objects.values()] == before

    def test_forged_form_is_refused(self, root: Client) -> None:
        strict = Client(enforce_csrf_checks=True)
        strict.cookies = root.cookies
        ask(root, "plan")
        task = Task.objects.get()

        for address in (ASK, f"{backup_page()[: -len('change/')]}ask/", restore_page(task)):
            assert strict.post(address, {"verb": "backup"}).status_code == 403

        assert Task.objects.count() == 1


class TestAsking:
    @pytest.mark.parametrize("verb", ["", "prune", "restore", "DROP TABLE"])
    def test_what_there_is_no_button_for(self, root: Client, verb: str) -> None:
        backup = Backup.objects.get()
        for address in (ASK, reverse("admin:mipyme_backup_backup_ask", args=[backup.pk])):
            assert root.post(address, {"verb": verb}).status_code == 403

    def test_backup_or_destination_that_is_not_there(self, root: Client) -> None:
        backup = Backup.objects.get()
        missing = reverse("admin:mipyme_backup_backup_ask", args=[backup.pk + 1])
        there = reverse("admin:mipyme_backup_backup_ask", args=[backup.pk])

        assert root.post(missing, {"verb": "verify"}).status_code == 404
        assert root.post(there, {"complete": "nowhere"}).status_code == 404

    def test_without_a_broker_the_command_is_said(
        self, root: Client, broker: celery.Celery
    ) -> None:
        broker.conf.update(broker_url=None)
        page = text_of(root.get(PAGE))
        answer = text_of(ask(root, "backup", follow=True))

        assert "python manage.py restore_drill" in page and 'value="backup"' not in page
        assert "Celery has no broker" in answer and "python manage.py backup" in answer
        assert not Task.objects.exists()

    def test_nobody_takes_it(self, root: Client) -> None:
        ask(root, "verify")
        _age(minutes=1)
        waiting = text_of(root.get(page_of(Task.objects.get())))
        _age(hours=2)
        over = root.get(progress_of(Task.objects.get())).json()
        ask(root, "verify")

        assert "No worker has taken it yet." in waiting
        assert f"python manage.py verify_backups {Backup.objects.get().backup_id}" in waiting
        assert over["ended"] and "No worker took it in time." in over["fragment"]
        assert sorted(task.status for task in Task.objects.all()) == ["abandoned", "queued"]

    def test_label_that_looks_like_an_option(self, root: Client) -> None:
        """What is shown to be run by hand has to run."""
        root.post(ASK, {"verb": "backup", "label": "--urgent"})
        _age(minutes=1)

        page = text_of(root.get(page_of(Task.objects.get())))

        argv = shlex.split(command("backup", options={"label": "--urgent"}))
        assert escape(shlex.join(argv)) in page
        parser = load_command_class("mipyme_backup", "backup").create_parser("manage.py", "backup")
        assert parser.parse_args(argv[3:]).label == "--urgent"

    def test_hostile_texts_are_shown_as_text(self, root: Client) -> None:
        ask(root, "backup")
        Task.objects.update(
            status="failed", error=HOSTILE, hint=HOSTILE, backup_name=HOSTILE, reason=HOSTILE
        )

        task = Task.objects.get()
        for page in (
            text_of(root.get(page_of(task))),
            root.get(progress_of(task)).json()["fragment"],
        ):
            assert "<script>alert" not in page and "<img" not in page


class TestProgress:
    def test_size_rate_and_time_left(self, root: Client) -> None:
        ask(root, "drill")
        now = datetime.now(UTC)
        Task.objects.update(
            status="running",
            step="Loading media from local",
            step_at=now - timedelta(seconds=10),
            seen_at=now,
            done_bytes=50 * 2**20,
            total_bytes=200 * 2**20,
        )

        said = root.get(progress_of(Task.objects.get())).json()

        assert said["said"] == "Loading media from local"
        text = " ".join(said["fragment"].replace("\xa0", " ").split())
        for part in ("25 %", "50.0 MB of 200.0 MB", "5.0 MB a second", "about 30 s left"):
            assert part in text

    def test_task_under_way_is_on_the_health_page(self, root: Client) -> None:
        ask(root, "drill")
        task = Task.objects.get()

        assert f'data-backup-follow="{progress_of(task)}"' in text_of(root.get(PAGE))

    def test_many_under_way_cost_the_health_page_little(self, root: Client) -> None:
        now = datetime.now(UTC)
        Task.objects.bulk_create(
            Task(task_id=f"{n:016x}", verb="backup", status="queued", asked_by="ana", asked_at=now)
            for n in range(300)
        )

        page = text_of(root.get(PAGE))

        assert page.count("data-backup-follow") == 10
        assert f"{299:016x}" in page and f"{0:016x}" not in page

    def test_site_that_shows_no_tasks(self, root: Client, settings: Any) -> None:
        ask(root, "drill")
        settings.ROOT_URLCONF = "tests.integration.test_admin_health"

        page = root.get("/own/mipyme_backup/backuphealth/")
        answer = root.post("/own/mipyme_backup/backuphealth/ask/", {"verb": "drill"})

        assert page.status_code == 200 and "Waiting for a worker." in text_of(page)
        assert answer["Location"] == "/own/mipyme_backup/backuphealth/"


class TestRestore:
    def test_killed_while_restoring(self, root: Client) -> None:
        """It may be as good as done: nobody is told to restore once more."""
        now = datetime.now(UTC)
        task = _plan()
        Task.objects.update(verb="restore", status="running", seen_at=now - timedelta(minutes=3))

        page = text_of(root.get(page_of(task)))

        assert "The next backup or restore brings it to an end" in page
        assert "python manage.py backup" in page and "python manage.py restore" not in page

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"name": "another"}, "That is not the name of this backup"),
            ({"name": ""}, "This field is required."),
            ({"reason": "oops"}, "at least 10 characters"),
            ({"password": "guessed"}, "That is not your password."),
            ({"password": ""}, "This field is required."),
        ],
    )
    def test_refusals(self, root: Client, changed: dict[str, str], said: str) -> None:
        task = _plan()

        page = root.post(restore_page(task), {**filled(task), **changed})

        assert page.status_code == 200 and said in text_of(page)
        assert PASSWORD not in text_of(page)
        assert not Task.objects.filter(verb="restore").exists()

    def test_plan_of_yesterday(self, root: Client) -> None:
        task = _plan()
        Task.objects.update(finished_at=datetime.now(UTC) - timedelta(hours=2))

        page = text_of(root.get(page_of(task)))
        answer = root.post(restore_page(task), filled(task), follow=True)

        assert "Go on to the restore" not in page
        assert "There is no plan here that still holds" in text_of(answer)
        assert not Task.objects.filter(verb="restore").exists()

    def test_needs_its_own_right(self, root: Client) -> None:
        task = _plan()
        client = staff("view_task", "view_backup", "run_backup", "run_drill", "pin_backup")

        assert "Go on to the restore" not in text_of(client.get(page_of(task)))
        assert client.get(restore_page(task)).status_code == 403
        assert client.post(restore_page(task), filled(task)).status_code == 403

    def test_password_is_in_no_report_of_an_error(self, root: Client, settings: Any) -> None:
        """Django mails one to ADMINS, with what each function knew; others send it elsewhere."""
        settings.AUTHENTICATION_BACKENDS = [
            f"{__name__}.{Broken.__name__}",
            *settings.AUTHENTICATION_BACKENDS,
        ]
        task, reports = _plan(), []

        def report(**_signal: Any) -> None:
            request = RequestFactory().get("/")
            reports.append(ExceptionReporter(request, *sys.exc_info()).get_traceback_html())

        got_request_exception.connect(report)
        root.raise_request_exception = False
        answer = root.post(restore_page(task), filled(task))
        got_request_exception.disconnect(report)

        assert answer.status_code == 500
        (html,) = reports
        assert "The directory is away." in html and PASSWORD not in html

    def test_who_has_no_password(self, root: Client) -> None:
        task = _plan()
        client = staff("restore_backup")

        page = text_of(client.get(restore_page(task)))

        assert f"python manage.py restore {task.backup_id}" in page
        assert 'type="password"' not in page


class Broken(BaseBackend):
    """A directory of users that is away when a password is asked for."""

    @sensitive_variables("secrets")
    def authenticate(self, request: Any, **secrets: Any) -> Any:
        raise RuntimeError("The directory is away.")


def _age(**span: float) -> None:
    Task.objects.update(asked_at=datetime.now(UTC) - timedelta(**span))


def _plan() -> Task:
    backup, now = Backup.objects.get(), datetime.now(UTC)
    return Task.objects.create(
        task_id="0123456789abcdef",
        verb="plan",
        status="complete",
        backup_id=backup.backup_id,
        backup_name=backup.name,
        asked_by="bea",
        asked_at=now,
        started_at=now,
        finished_at=now,
        result={"plan": ["The live data is saved first, as a safety backup."]},
    )
