"""The catalog's tables are the database's, and others may have rights there: a run goes on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.e2e.project import Project, postgresql_project
from tests.services import PostgreSQLServer

OPERATOR = """
    CREATE FUNCTION public.same(varchar, varchar) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE OPERATOR public.= (leftarg = varchar, rightarg = varchar, procedure = public.same)
"""
TRIGGER = """
    CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER lost BEFORE INSERT ON public.mipyme_backup_backup
        FOR EACH ROW EXECUTE FUNCTION public.nothing();
    CREATE TRIGGER lost BEFORE INSERT ON public.mipyme_backup_copy
        FOR EACH ROW EXECUTE FUNCTION public.nothing();
    CREATE TRIGGER lost BEFORE INSERT ON public.mipyme_backup_restore
        FOR EACH ROW EXECUTE FUNCTION public.nothing()
"""
SLEEPER = """
    CREATE FUNCTION public.asleep() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_catalog.pg_sleep(3600); RETURN NEW; END';
    CREATE TRIGGER asleep BEFORE INSERT ON public.mipyme_backup_backup
        FOR EACH ROW EXECUTE FUNCTION public.asleep()
"""


@pytest.mark.parametrize(
    "trap",
    [
        OPERATOR,
        pytest.param(TRIGGER, marks=pytest.mark.rare),
        pytest.param(SLEEPER, marks=pytest.mark.rare),
    ],
    ids=["operator", "trigger", "sleeper"],
)
def test_catalog_with_traps_stops_no_run(
    trap: str, postgresql_server: PostgreSQLServer, tmp_path: Path
) -> None:
    with postgresql_project(tmp_path, postgresql_server) as project:
        project.populate()
        project.backup()
        project.backup()
        postgresql_server.execute(trap, str(project.database["NAME"]))

        saved = project.execute("SELECT sum(balance) FROM zoo_account")
        made = _told(project, "backup")
        project.execute("UPDATE zoo_account SET balance = balance + 1")
        restored = _told(project, "restore", "--latest", "--no-input", "--no-safety-backup")

        assert "without the catalog" in made.stderr
        assert "without the catalog" in restored.stderr
        assert project.execute("SELECT sum(balance) FROM zoo_account") == saved


def test_locked_catalog_stops_no_run(postgresql_server: PostgreSQLServer, tmp_path: Path) -> None:
    with postgresql_project(tmp_path, postgresql_server) as project:
        project.populate()
        project.backup()
        table = sql.SQL("LOCK TABLE mipyme_backup_backup IN ACCESS EXCLUSIVE MODE")
        with postgresql_server.connect(str(project.database["NAME"])) as session:
            session.autocommit = False
            session.execute(table)

            made = _told(project, "backup", "--only", "media")

            assert session.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        assert "without the catalog" in made.stderr


def _told(project: Project, *command: str) -> subprocess.CompletedProcess[str]:
    ended = project.manage(*command, check=False)
    assert "Traceback" not in ended.stderr, ended.stderr[-3000:]
    assert ended.returncode == 0, ended.stderr
    return ended
