"""What a worker makes of what the admin asks for: done once, told while it goes on, kept."""

from __future__ import annotations

import sqlite3
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import celery
import pytest
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import connection, connections
from django.test import Client
from django.urls import reverse

from mipyme_backup import api
from mipyme_backup.catalog import tasks as records
from mipyme_backup.catalog.tasks import Asked
from mipyme_backup.errors import LockedError
from mipyme_backup.models import Backup, Copy, Drill, Restore, Task
from mipyme_backup.operations import verify as verify_operation
from mipyme_backup.parts import build_project
from mipyme_backup.queue import RUN_TASK
from tests.integration.asking import (
    ASK,
    PASSWORD,
    REASON,
    ask,
    backup_page,
    filled,
    logged_in,
    messages,
    page_of,
    planned,
    progress_of,
    restore_page,
    run_newest,
    text_of,
)
from tests.integration.conftest import LOCAL


@pytest.fixture
def shop(backups: Path, broker: celery.Celery, settings: Any) -> Path:
    """A project with one backup, whose admin may restore."""
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "ADMIN_RESTORE": True}
    api.backup(label="first")
    return backups


@pytest.fixture
def root(database: None) -> Client:
    user = User.objects.create_superuser("root", password=PASSWORD)
    return logged_in(user)


class TestAsking:
    def test_message_names_the_task_and_nothing_else(
        self, shop: Path, root: Client, broker: celery.Celery
    ) -> None:
        root.post(ASK, {"verb": "backup", "label": "  before the fair "})

        (message,) = messages(broker)
        task = Task.objects.get()
        assert message.headers["task"] == RUN_TASK
        assert message.payload[1] == {"task_id": task.task_id}
        assert task.options == {"label": "before the fair"}

    def test_same_again_is_under_way(self, shop: Path, root: Client, broker: Any) -> None:
        answers = [ask(root, "drill", follow=True) for _time in range(2)]

        assert Task.objects.count() == len(messages(broker)) == 1
        assert "That is under way already." in text_of(answers[1])

    def test_label_that_is_none(self, shop: Path, root: Client) -> None:
        root.post(ASK, {"verb": "backup", "label": "x" * 201})

        assert run_newest() == "failed"
        assert "The label must be one line" in text_of(root.get(page_of(Task.objects.get())))

    def test_broker_that_is_away(self, shop: Path, root: Client, broker: celery.Celery) -> None:
        broker.conf.update(broker_url="redis://:secret-word@127.0.0.1:1/0")
        page = text_of(ask(root, "backup", follow=True))  # and does not wait for it for ever

        assert "The broker of the workers cannot be reached" in page
        assert "python manage.py backup" in page and "secret-word" not in page
        assert Task.objects.get().status == "failed"

    @pytest.mark.parametrize(
        "url",
        ["redis://:secret/word@127.0.0.1:1/0", "nonsense://:secret/word@host/", "sentinel://:1/x"],
    )
    def test_broker_that_is_none(
        self, shop: Path, root: Client, broker: celery.Celery, url: str, caplog: Any
    ) -> None:
        broker.conf.update(broker_url=url)

        page = text_of(ask(root, "backup", follow=True))

        assert "The broker of the workers cannot be reached" in page
        assert Task.objects.get().status == "failed"
        assert "secret" not in page + caplog.text

    def test_worker_was_quicker_than_the_broker(
        self, shop: Path, root: Client, broker: celery.Celery
    ) -> None:
        """The broker took the message, and did not say so: what a worker has is not failed."""
        root.post(ASK, {"verb": "backup"})
        task = Task.objects.get()
        assert records.claim(task.task_id, datetime.now(UTC)) is not None

        records.give_up_unsent(task.task_id, datetime.now(UTC), error="no answer")

        assert Task.objects.get().status == "running"


class TestWorker:
    def test_backup(self, shop: Path, root: Client) -> None:
        root.post(ASK, {"verb": "backup", "label": "by hand"})

        assert run_newest() == "complete"
        made = Backup.objects.get(label="by hand")
        task = Task.objects.get()
        assert task.result == {"backup_id": made.backup_id}
        assert task.started_at and task.finished_at
        assert reverse("admin:mipyme_backup_backup_change", args=[made.pk]) in text_of(
            root.get(page_of(task))
        )

    def test_verify_names_what_is_damaged(self, shop: Path, root: Client) -> None:
        backup = Backup.objects.get()
        ask(root, "verify")
        good = run_newest()
        volume = max((shop / backup.name).iterdir(), key=lambda file: file.stat().st_size)
        volume.write_bytes(volume.read_bytes()[:-1] + b"\0")
        ask(root, "verify")

        assert (good, run_newest()) == ("complete", "failed")
        page = text_of(root.get(page_of(Task.objects.first())))
        assert volume.name in page
        assert Copy.objects.get().status == "damaged"

    def test_drill(self, shop: Path, root: Client) -> None:
        ask(root, "drill")

        assert run_newest() == "complete"
        drill = Drill.objects.get()
        assert drill.passed
        assert reverse("admin:mipyme_backup_drill_change", args=[drill.pk]) in text_of(
            root.get(page_of(Task.objects.get()))
        )

    def test_pin_and_unpin(self, shop: Path, root: Client) -> None:
        for verb, pinned in {"pin": True, "unpin": False}.items():
            ask(root, verb)
            assert run_newest() == "complete"
            assert Backup.objects.get().pinned is pinned

    def test_copy_that_failed_is_sent_again(self, shop: Path, root: Client, settings: Any) -> None:
        options = {"location": shop.parent / "second"}
        settings.MIPYME_BACKUP["DESTINATIONS"]["second"] = {"BACKEND": LOCAL, "OPTIONS": options}
        backup = Backup.objects.get()
        Copy.objects.create(backup=backup, destination="second", status="failed", error="full")

        page = text_of(root.get(backup_page()))
        ask(root, "complete", destination="second")

        assert 'name="complete" value="second"' in page
        assert run_newest() == "complete"
        assert Copy.objects.get(destination="second").status == "complete"
        assert (shop.parent / "second" / backup.name / "manifest.json").exists()

    def test_error_is_said_with_what_to_do(self, shop: Path, root: Client) -> None:
        (shop.parent / "passphrase").unlink()
        root.post(ASK, {"verb": "backup"})

        assert run_newest() == "failed"
        page = text_of(root.get(page_of(Task.objects.get())))
        assert "passphrase" in page and "correct horse" not in page

    def test_waits_for_the_lock_and_says_so(self, shop: Path, root: Client) -> None:
        root.post(ASK, {"verb": "backup"})
        worker = threading.Thread(target=_run_and_close)
        with build_project().lock("backup"):
            worker.start()
            _wait(lambda: "Another run holds the lock" in Task.objects.get().step)
            said = root.get(progress_of(Task.objects.get())).json()
        worker.join()

        assert not said["ended"]
        assert (
            "Waiting until that has ended: Another run holds the lock: backup (process"
            in said["fragment"]
        )
        assert Task.objects.get().status == "complete"

    def test_is_done_once(self, shop: Path, root: Client) -> None:
        root.post(ASK, {"verb": "backup"})

        assert [run_newest(), run_newest()] == ["complete", None]
        assert Backup.objects.count() == 2

    def test_one_whose_worker_died_is_taken_again(self, shop: Path, root: Client) -> None:
        root.post(ASK, {"verb": "backup"})
        task = Task.objects.get()
        assert records.claim(task.task_id, datetime.now(UTC)) is not None

        with pytest.raises(LockedError):
            run_newest()
        _silence()
        shown = root.get(progress_of(task)).json()

        assert shown["ended"] and "no sign of life" in shown["fragment"]
        assert run_newest() == "complete"

    def test_interrupted_worker_says_so(
        self, shop: Path, root: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*_args: Any, **_options: Any) -> None:
            raise SystemExit(143)

        root.post(ASK, {"verb": "backup"})
        monkeypatch.setattr("mipyme_backup.operations.backup.run", interrupt)

        with pytest.raises(SystemExit):
            run_newest()
        task = Task.objects.get()
        assert (task.status, task.error) == ("failed", "The run was interrupted.")

    def test_end_is_written_once_the_database_takes_it(self, shop: Path, root: Client) -> None:
        """Else it would seem to go on, and be done once more by whom Celery sends it to again."""
        ask(root, "verify")
        name = str(connection.settings_dict["NAME"])
        locked = sqlite3.connect(name, timeout=30, isolation_level=None, check_same_thread=False)
        work = verify_operation.run

        def lock_at_the_end(*parts: Any, **options: Any) -> Any:
            found = work(*parts, **options)
            locked.execute("BEGIN EXCLUSIVE")
            threading.Timer(8, locked.rollback).start()  # longer than Django waits
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(verify_operation, "run", lock_at_the_end)
            assert run_newest() == "complete"
        locked.close()

        assert Task.objects.get().status == "complete"

    @pytest.mark.parametrize("verb", ["backup", "verify", "drill", "pin", "unpin", "plan"])
    def test_of_a_user_who_may_not_any_more(self, shop: Path, root: Client, verb: str) -> None:
        ask(root, verb)
        User.objects.update(is_active=False)

        assert run_newest() == "failed"
        assert "root may not ask for this any more" in Task.objects.get().error
        assert (Backup.objects.count(), Drill.objects.count()) == (1, 0)

    def test_message_of_another_s_making(self, shop: Path, root: Client) -> None:
        """Whatever names a task that is over, or none, does nothing."""
        root.post(ASK, {"verb": "backup"})
        task = Task.objects.get()
        assert run_newest() == "complete"
        names: list[Any] = [task.task_id, str(task.pk), "", "../../x", "x" * 10**6, 7, None, ["x"]]

        found = [api.run_task(task_id=name) for name in [*names, {"pk": 1}]]

        assert found == [None] * (len(names) + 1)
        assert Backup.objects.count() == 2


class TestRestore:
    def test_plan_then_restore(self, shop: Path, root: Client) -> None:
        Group.objects.update(name="after")
        task = planned(root)
        page = text_of(root.get(page_of(task)))
        form = text_of(root.get(restore_page(task)))

        answer = root.post(restore_page(task), filled(task))
        assert run_newest(verb="restore") == "complete"

        assert "Go on to the restore" in page
        assert "The live data is saved first, as a safety backup." in form
        assert Group.objects.get().name == "before"
        kept = Task.objects.get(verb="restore")  # it survived what it did
        assert answer["Location"].endswith(f"/{kept.task_id}/change/")
        assert (kept.asked_by, kept.reason, kept.status) == ("root", REASON, "complete")
        restore = Restore.objects.get()
        assert kept.result["restore_id"] == restore.restore_id

    def test_backup_of_another_host_needs_a_tick(
        self, shop: Path, root: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Group.objects.update(name="after")
        monkeypatch.setattr("socket.gethostname", lambda: "another-host")
        task = planned(root)

        form = text_of(root.get(restore_page(task)))
        refused = text_of(root.post(restore_page(task), filled(task)))
        assert not Task.objects.filter(verb="restore").exists()
        root.post(restore_page(task), {**filled(task), "other_origin": "on"})
        assert run_newest(verb="restore") == "complete"

        assert "another-host" in form and 'name="other_origin"' in form
        assert "This field is required." in refused
        assert Group.objects.get().name == "before"

    def test_backup_of_this_host_has_nothing_to_tick(self, shop: Path, root: Client) -> None:
        task = planned(root)

        assert 'name="other_origin"' not in text_of(root.get(restore_page(task)))

    def test_task_that_is_no_plan(self, shop: Path, root: Client) -> None:
        ask(root, "verify")
        run_newest()
        task = Task.objects.get()

        assert root.post(restore_page(task), filled(task)).status_code == 302
        assert not Task.objects.filter(verb="restore").exists()

    def test_plan_is_good_for_one(self, root: Client, shop: Path) -> None:
        """Whoever goes back in the browser and sends the form again restores nothing again."""
        api.backup()  # with the user
        Backup.objects.get(label="first").delete()
        task = planned(root)
        root.post(restore_page(task), filled(task))
        assert run_newest(verb="restore") == "complete"
        root = logged_in(User.objects.get())

        answer = root.post(restore_page(task), filled(task), follow=True)

        assert "There is no plan here that still holds" in text_of(answer)
        assert Task.objects.filter(verb="restore").count() == 1

    def test_one_at_a_time(self, shop: Path, root: Client) -> None:
        """A second one that waits for a worker would undo what was done after the first."""
        task = planned(root)
        first = root.post(restore_page(task), filled(task))
        second = root.post(restore_page(task), {**filled(task), "migrate": "on"})

        assert first["Location"] == second["Location"]
        assert Task.objects.filter(verb="restore").count() == 1

    @pytest.mark.parametrize(
        "changed", [{"is_active": False}, {"is_superuser": False}, {"username": "another"}]
    )
    def test_who_may_not_any_more(self, shop: Path, root: Client, changed: dict[str, Any]) -> None:
        """Somebody was shown the door between the form and the worker."""
        task = planned(root)
        root.post(restore_page(task), filled(task))
        User.objects.update(**changed)

        assert run_newest(verb="restore") == "failed"
        assert "root may not ask for this any more" in Task.objects.get(verb="restore").error
        assert not Restore.objects.exists()

    def test_backup_from_before_there_were_tasks(self, root: Client, shop: Path) -> None:
        """Whoever migrates afterwards finds who asked for it, and why."""
        call_command("migrate", "mipyme_backup", "0004", verbosity=0)
        try:
            api.backup(label="old")
        finally:
            call_command("migrate", verbosity=0)
        api.backups(sync=True)  # its run could not be noted: the catalog was too old
        Backup.objects.exclude(label="old").delete()
        task = planned(root)
        root.post(restore_page(task), {**filled(task), "migrate": "on"})

        assert run_newest(verb="restore") == "complete"

        kept = Task.objects.get(verb="restore")
        assert (kept.asked_by, kept.reason, kept.status) == ("root", REASON, "complete")
        assert kept.backup_name == task.backup_name

    def test_switched_off(self, shop: Path, root: Client, settings: Any) -> None:
        task = planned(root)
        settings.MIPYME_BACKUP["ADMIN_RESTORE"] = False

        assert 'value="plan"' not in text_of(root.get(backup_page()))
        assert "Restoring from the admin is switched off." in text_of(
            ask(root, "plan", follow=True)
        )
        for method in (root.get, root.post):
            assert method(restore_page(task), filled(task)).status_code == 403

    def test_switched_off_for_the_worker(self, shop: Path, root: Client, settings: Any) -> None:
        """A page that was not restarted asks; the worker's own settings decide."""
        ask(root, "plan")
        settings.MIPYME_BACKUP["ADMIN_RESTORE"] = False

        assert run_newest() == "failed"
        assert "switched off" in Task.objects.get().error

    def test_does_not_wait(self, shop: Path, root: Client) -> None:
        task = planned(root)
        root.post(restore_page(task), filled(task))
        with build_project().lock("backup"):
            assert run_newest(verb="restore") == "failed"
        assert "Another run holds the lock" in Task.objects.get(verb="restore").error

    def test_is_never_begun_again_by_itself(self, shop: Path, root: Client) -> None:
        task = planned(root)
        root.post(restore_page(task), filled(task))
        asked = Task.objects.get(verb="restore")
        assert records.claim(asked.task_id, datetime.now(UTC)) is not None
        _silence()

        assert run_newest(verb="restore") is None
        assert not Restore.objects.exists()

    def test_one_of_an_hour_ago_is_not_taken(self, shop: Path) -> None:
        now = datetime.now(UTC)
        kept = records.add(Asked(verb="restore", asked_by="root"), now - timedelta(minutes=11))

        assert records.claim(kept.task_id, now) is None


def _run_and_close() -> None:
    run_newest()
    connections.close_all()  # those of this thread


def _silence() -> None:
    Task.objects.update(seen_at=datetime.now(UTC) - timedelta(minutes=3))


def _wait(done: Any) -> None:
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.2)
