"""What a restore replaced, and the server does not let go: told until it is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import Project, postgresql_project
from tests.services import PostgreSQLServer


def _findings(project: Project) -> list[dict[str, Any]]:
    found = project.manage("backup_status", "--json", check=False).stdout
    return [f for f in json.loads(found)["findings"] if f["id"].startswith("restore_unremoved:")]


@pytest.mark.rare
def test_a_replaced_database_that_cannot_be_dropped_is_a_finding(
    postgresql_server: PostgreSQLServer, tmp_path: Path
) -> None:
    with postgresql_project(tmp_path, postgresql_server, KEEP_REPLACED_HOURS=0) as project:
        project.manage("migrate", "--verbosity=0")
        made = project.backup("--only=database")
        restored = project.restore(made["id"])
        before = restored["replaced"]["database:default"]

        def template(flag: bool) -> None:
            statement = f"UPDATE pg_database SET datistemplate = {flag} WHERE datname = '{before}'"
            postgresql_server.execute(statement)

        template(True)
        try:
            project.backup("--only=database")
            (finding,) = _findings(project)
            assert finding["id"].endswith(restored["id"])
            assert before in finding["message"]
            assert "template" in finding["message"]
        finally:
            template(False)
        project.backup("--only=database")

        assert _findings(project) == []
        assert not project.database_exists(before)
