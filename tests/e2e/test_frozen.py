"""A backup that an earlier release made is verified and restored by this one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mipyme_backup import manifest
from tests import services
from tests.e2e import frozen
from tests.e2e.project import REPOSITORY, Project, postgresql_project, sqlite_project

ARTIFACTS = REPOSITORY / "tests" / "artifacts"
FORMATS = sorted(path.name for path in ARTIFACTS.glob("format_*"))


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, workdir: Path) -> Iterator[Project]:
    if request.param == "sqlite":
        with sqlite_project(workdir, **frozen.OPTIONS) as made:
            yield made
        return
    with services.postgresql() as server:
        with postgresql_project(workdir, server, **frozen.OPTIONS) as made:
            yield made


@pytest.mark.parametrize("version", FORMATS)
def test_frozen_backup_comes_back(project: Project, version: str, workdir: Path) -> None:
    kept = ARTIFACTS / version / ("postgresql" if project.server else "sqlite")
    project.passphrase_file.write_text(frozen.PASSPHRASE)
    shutil.copytree(kept, project.backups)
    for folder, _folders, files in os.walk(project.backups):
        os.chmod(folder, 0o700)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o600)
    media = workdir / "media"
    name = f"{project.database['NAME']}_frozen"

    (verified,) = project.json("verify_backups", "--level", "content")
    project.restore("--latest", "--to-database", name, "--to-media", str(media))

    assert verified["ok"], verified
    expected = json.loads((kept / "expected.json").read_text())
    assert json.loads(json.dumps(frozen.expected(project, name, media))) == expected


def test_each_format_has_its_frozen_backup() -> None:

    assert f"format_{manifest.FORMAT}" in FORMATS
