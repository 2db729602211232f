"""What a task is after each thing that goes wrong: two at once, kills, a connection that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import services
from tests.e2e.project import Project, postgresql_project, sqlite_project

TOGETHER = """
import threading
from django.db import connection, transaction
from django.utils.timezone import now
from mipyme_backup.catalog.tasks import Asked, add

everybody = threading.Barrier(8)
found = []

def ask():
    connection.ensure_connection()
    everybody.wait()
    with transaction.atomic():  # as with ATOMIC_REQUESTS
        found.append(add(Asked(verb="drill", asked_by="ana"), now()).task_id)
    connection.close()

threads = [threading.Thread(target=ask) for _person in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(*found)
"""

CREATE_ANA = """
from django.contrib.auth.models import User
User.objects.create_superuser("ana")
"""
ASK = """
from django.utils.timezone import now
from mipyme_backup.catalog.tasks import Asked, add
print(add(Asked(verb="%s", asked_by="ana", backup_id="%s", reason="It was lost."), now()).task_id)
"""
RUN = """
from mipyme_backup import api
print(api.run_task(task_id="%s"))
"""
CUT_OFF = """
from django.db import connection
from mipyme_backup import api, signals

def cut_off(**_signal):  # as a restart of the server, or a router that forgets what is silent
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.connection.close()

signals.backup_finished.connect(cut_off)
print(api.run_task(task_id="%s"))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(
    request: pytest.FixtureRequest,
    postgresql_server: services.PostgreSQLServer,
    workdir: Path,
) -> Iterator[Project]:
    with (
        sqlite_project(workdir / "shop")
        if request.param == "sqlite"
        else postgresql_project(workdir / "shop", postgresql_server)
    ) as project:
        project.backup_settings["ADMIN_RESTORE"] = True
        project.write()
        project.populate()
        yield project


def test_asked_at_the_same_moment(shop: Project) -> None:
    found = shop.manage("shell", "-v0", "-c", TOGETHER).stdout.split()

    rows = shop.execute("SELECT task_id FROM mipyme_backup_task")
    assert len(found) == 8 and {(task_id,) for task_id in found} == {*rows}
    assert len(rows) == 1


@pytest.mark.parametrize("phase", ["loading", "swapping"])
def test_restore_whose_worker_is_killed(shop: Project, phase: str) -> None:
    """It is never begun again; the next backup brings it to an end, and the task tells of it."""
    shop.manage("shell", "-v0", "-c", CREATE_ANA)
    backup = shop.backup()
    saved = shop.fingerprint()
    shop.execute("UPDATE zoo_tag SET slug = slug || '-changed'")
    live = shop.fingerprint()
    task_id = shop.manage("shell", "-v0", "-c", ASK % ("restore", backup["id"])).stdout.strip()

    worker = subprocess.Popen(
        shop.command("shell", "-v0", "-c", RUN % task_id),
        cwd=shop.root,
        env=shop.environment(),
        start_new_session=True,
    )
    _wait_for_phase(shop, phase)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()

    silence = "UPDATE mipyme_backup_task SET seen_at = '2020-01-01 00:00:00+00:00'"
    shop.execute(silence)
    again = shop.manage("shell", "-v0", "-c", RUN % task_id).stdout.strip()
    before = _restores(shop)
    shop.backup()
    after = _restores(shop)

    assert again == "None" and before in (["running"], [])
    found = shop.fingerprint()
    assert found in (saved, live)
    if found == saved:
        assert after == ["complete"]
    else:
        assert after in (["abandoned"], [])  # none: killed before the catalog knew of it
    (row,) = shop.execute("SELECT asked_by, reason, status FROM mipyme_backup_task")
    assert row == ("ana", "It was lost.", "running")


def test_connection_that_ends_while_the_work_goes_on(
    shop: Project, postgresql_server: services.PostgreSQLServer
) -> None:
    if shop.server is None:
        pytest.skip("SQLite has no connections that others can end")
    shop.manage("shell", "-v0", "-c", CREATE_ANA)
    task_id = shop.manage("shell", "-v0", "-c", ASK % ("backup", "")).stdout.strip()

    ended = shop.manage("shell", "-v0", "-c", CUT_OFF % task_id).stdout.split()

    assert ended[-1] == "complete"
    assert shop.execute("SELECT status FROM mipyme_backup_task") == [("complete",)]


def _restores(project: Project) -> list[str]:
    return [status for (status,) in project.execute("SELECT status FROM mipyme_backup_restore")]


def _wait_for_phase(project: Project, phase: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for path in project.state.glob("**/*.json"):
            with contextlib.suppress(OSError):
                if f'"phase": "{phase}"' in path.read_text():
                    return
        time.sleep(0.001)
    raise AssertionError(f"it never came to {phase}")
