"""`backup_status` ends in time, whatever a destination's service does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mipyme_backup.schedule import JOBS
from tests import services
from tests.e2e.project import Project, sqlite_project
from tests.proxy import Fault, Proxy, proxy

SECONDS = 120
TIMEOUT = 4
STORAGES = """
STORAGES = {{
    "default": {{"BACKEND": "django.core.files.storage.FileSystemStorage"}},
    "staticfiles": {{"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}},
    "offsite": {{"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": {options!r}}},
}}
MIPYME_BACKUP["SCHEDULE"] = dict.fromkeys({jobs!r})
MIPYME_BACKUP["DESTINATIONS"]["offsite"] = {{
    "BACKEND": "mipyme_backup.destinations.StorageDestination",
    "OPTIONS": {{"storage": "offsite"}},
}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[services.S3Server]:
    with services.s3() as running:
        yield running


@pytest.fixture
def way(server: services.S3Server) -> Iterator[Proxy]:
    with proxy(server.port) as running:
        yield running


@pytest.fixture
def project(server: services.S3Server, way: Proxy, tmp_path: Path) -> Iterator[Project]:
    """A project with a good backup on this machine and in S3, the way there through a proxy."""
    with sqlite_project(tmp_path) as made:
        options = server.options(
            endpoint_url=f"http://127.0.0.1:{way.port}", location=tmp_path.name
        )
        with (made.root / "config" / "settings.py").open("a") as settings:
            settings.write(STORAGES.format(options=options, jobs=JOBS))
        made.populate()
        made.backup()
        yield made


@pytest.mark.parametrize(
    ("request_line", "finding"),
    [
        ("GET /backups", "destination_unreachable:offsite"),
        ("PUT .*probe", "destination_unwritable:offsite"),
    ],
    ids=["listing", "probe"],
)
def test_stall_costs_its_time_and_no_more(
    project: Project, way: Proxy, request_line: str, finding: str
) -> None:
    way.plan(Fault(action="stall", request=request_line, times=99))

    ended = subprocess.run(
        project.command("backup_status", "--json", f"--timeout={TIMEOUT}"),
        cwd=project.root,
        env=project.environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )

    assert ended.returncode == 1, ended.stderr
    told = json.loads(ended.stdout)
    assert [item["id"] for item in told["findings"]] == [finding]
    assert told["facts"]["newest_good"]["copies"] == {"local": "complete", "offsite": "complete"}
