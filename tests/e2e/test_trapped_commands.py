"""Every command, run on a database full of traps by the roles that the documentation sets up."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.project import Project, postgresql_project
from tests.e2e.test_services import needs_private_server
from tests.e2e.trapped_database import SPRUNG, sprung, tables, triggers
from tests.services import PostgreSQLServer

pytestmark = needs_private_server  # whose log can be read


@dataclass
class Trapped:
    project: Project
    server: PostgreSQLServer
    mark: str

    @property
    def site(self) -> str:
        return str(self.project.database["USER"])

    @property
    def backup(self) -> str:
        return f"{self.site}_backup"

    @property
    def restore(self) -> str:
        return f"{self.site}_restore"

    @property
    def evil(self) -> str:
        return f"{self.site}_evil"

    def lay(self, role: str, *statements: str) -> None:
        self.server.execute(
            f"SET ROLE {role};" + ";".join(statements), self.project.database["NAME"]
        )

    def escalated(self) -> list[str]:
        """Return the traps that ran in a session of a role with more rights than the site's."""
        ours = {self.backup, self.restore}
        return sorted(f"{trap} by {role}" for trap, role in self.all() if role in ours)

    def all(self) -> set[tuple[str, str]]:
        return sprung(self.server, self.mark)


@pytest.fixture
def trapped(workdir: Path, postgresql_server: PostgreSQLServer) -> Iterator[Trapped]:
    """A project with three roles; another one, that may only create in `public`, has laid traps."""
    server = postgresql_server
    with postgresql_project(workdir, server) as project:
        made = Trapped(project, server, secrets.token_hex(4))
        project.populate()
        project.execute(project.manage("sqlsequencereset", "auth", "zoo", "zoo_postgresql").stdout)
        server.execute(f"ALTER ROLE {made.site} NOCREATEDB")
        for role in (made.backup, made.restore, made.evil):
            server.create_role(role, "pw", createdb=role == made.restore)
        server.execute(
            f"GRANT pg_read_all_data TO {made.backup}; ALTER ROLE {made.backup} BYPASSRLS;"
            f"GRANT {made.site} TO {made.restore}; ALTER ROLE {made.restore} BYPASSRLS"
        )
        for (number,) in server.execute(
            "SELECT oid FROM pg_largeobject_metadata", project.database["NAME"]
        ):
            server.execute(
                f"GRANT SELECT ON LARGE OBJECT {number} TO {made.backup}", project.database["NAME"]
            )
        project.backup_settings["SOURCES"] = {
            "database": {
                "BACKEND": "mipyme_backup.sources.DatabaseSource",
                "OPTIONS": {
                    name: {"default": {"USER": role, "PASSWORD": "pw"}}
                    for name, role in (
                        ("connections", made.backup),
                        ("restore_connections", made.restore),
                    )
                },
            },
            "fixtures": {"BACKEND": "mipyme_backup.sources.FixturesSource"},
            "media": {"BACKEND": "mipyme_backup.sources.MediaSource"},
        }
        project.write()
        made.lay(made.site, f"GRANT CREATE ON SCHEMA public TO {made.evil}")
        try:
            yield made
        finally:
            for (name,) in server.execute("SELECT datname FROM pg_database"):
                if name.startswith(project.database["NAME"]):
                    server.drop_database(name)
            for role in (made.backup, made.restore, made.evil):
                server.drop_role(role)


@pytest.mark.rare
def test_no_command_springs_a_trap_with_the_rights_of_backup_or_restore(trapped: Trapped) -> None:
    trapped.lay(trapped.evil, SPRUNG.format(mark=trapped.mark), *tables())
    trapped.lay(trapped.site, *triggers("mipyme_backup_backup"), *triggers("auth_user"))
    project = trapped.project
    assert trapped.escalated() == []

    found = {}
    for command in (
        ["check", "--database", "default"],
        ["backup"],
        ["verify_backups", "--latest", "--level", "content"],
        ["restore_drill"],
        ["restore", "--latest", "--no-input"],
        # Restored, the tables are the owner's, whose functions a backup may run: see threat-model.
        ["restore", "--undo", "--no-safety-backup", "--no-input"],
    ):
        result = project.manage(*command, check=False)
        assert result.returncode == 0, (command, result.stdout[-3000:], result.stderr[-3000:])
        found[command[0]] = trapped.escalated()

    assert found == {command: [] for command in found}
    # The traps are live ones: they spring where the site's own role uses its tables.
    at_site = {trap for trap, role in trapped.all() if role == trapped.site}
    assert at_site >= {
        "check",
        "check_of_one",
        "domain",
        "generated",
        "partition",
        "materialized",
        "auth_user_always",
        "auth_user_late",
        "auth_user_ordinary",
        "mipyme_backup_backup_always",
    }
