"""What a task is after each thing that goes wrong: two at once, kills, a connection that ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import services
from tests.e2e.project import Project, postgresql_project, sqlite_project

TOGETHER = """
import threading
from django.db import connection, transaction
from mipyme_backup import api

everybody = threading.Barrier(8)
found = []

def ask():
    connection.ensure_connection()
    everybody.wait()
    with transaction.atomic():  # as with ATOMIC_REQUESTS
        found.append(api.ask(verb="drill", by="ana").task_id)
    connection.close()

threads = [threading.Thread(target=ask) for _person in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(*found)
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
