"""A role that may not create databases: what is live is replaced in one transaction."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from pytest_django import DjangoDbBlocker

from mipyme_backup.errors import DamagedError, RestoreError
from mipyme_backup.process import Reader
from mipyme_backup.sources.postgresql import InPlaceTarget, PostgreSQLSnapshot
from mipyme_backup.testing import BytesReader, read_whole
from tests.e2e.project import Project, postgresql_project
from tests.services import PostgreSQLServer

DUMP = "database.default.dump"
KILLS = 8 if os.environ.get("TESTS") else 1


@pytest.fixture(scope="module")
def original(
    postgresql_server: PostgreSQLServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    with postgresql_project(tmp_path_factory.mktemp("original"), postgresql_server) as made:
        made.populate()
        user, password = made.database["USER"], made.database["PASSWORD"]
        postgresql_server.create_role(user, password, createdb=False)
        yield made


@pytest.fixture
def project(original: Project, workdir: Path) -> Project:
    """A filled project of a role that may not create databases."""
    return original.clone(workdir)


def change(project: Project) -> None:
    """What happened since the backup: rows, tables, a schema, a function, a file."""
    for statement in (
        "UPDATE zoo_tag SET slug = slug || '-changed'",
        "CREATE SCHEMA since; CREATE TABLE since.added (id serial PRIMARY KEY)",
        "CREATE TABLE newer (tag bigint REFERENCES zoo_tag)",
        "CREATE VIEW newest AS SELECT * FROM newer",
        "CREATE TYPE mood AS ENUM ('fine')",
        "CREATE FUNCTION since() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SELECT lo_from_bytea(0, 'new')",
    ):
        project.execute(statement)
    (project.media / "plain.txt").write_text("changed since")


def tables(project: Project) -> set[str]:
    query = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v') AND relowner = user::regrole"
    return {row[0] for row in project.execute(query)}


def test_role_without_createdb_restores_in_place(project: Project) -> None:
    first = project.backup()
    live, media = project.fingerprint(), project.media_fingerprint()
    change(project)

    refused = project.manage("restore", first["id"], "--no-input", check=False)
    assert refused.returncode == 1
    assert "--in-place" in refused.stderr and "CREATEDB" in refused.stderr
    plan = project.json("restore", first["id"], "--in-place", "--plan")["plan"]
    assert any("IN PLACE" in line for line in plan)

    restored = project.restore(first["id"], "--in-place")

    assert project.fingerprint() == live
    assert project.media_fingerprint() == media
    assert restored["safety_backup"] and list(restored["replaced"]) == ["media"]
    assert not tables(project) & {"newer", "newest", "added"}
    assert project.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'since'") == [(0,)]
    history = {row["id"]: row["status"] for row in project.json("list_backups")}
    assert history[first["id"]] == "complete" and len(history) == 2
    undone = project.manage("restore", "--undo", "--no-input", check=False)
    assert undone.returncode == 1 and "safety backup" in undone.stderr
    assert "Traceback" not in undone.stderr
    project.restore(restored["safety_backup"], "--in-place")
    assert "newer" in tables(project)
    assert (project.media / "plain.txt").read_text() == "changed since"


def test_role_that_does_not_even_own_the_database(
    postgresql_server: PostgreSQLServer, workdir: Path
) -> None:
    with postgresql_project(workdir, postgresql_server) as project:
        name, user = project.database["NAME"], project.database["USER"]
        project.populate()
        postgresql_server.create_role(user, project.database["PASSWORD"], createdb=False)
        for statement in ("ALTER DATABASE {} OWNER TO {}",):
            owner = sql.Identifier(postgresql_server.user)
            postgresql_server.execute(sql.SQL(statement).format(sql.Identifier(name), owner))
        grant = sql.SQL("GRANT CREATE ON SCHEMA public TO {}; GRANT CREATE ON DATABASE {} TO {}")
        who = sql.Identifier(user)
        postgresql_server.execute(grant.format(who, sql.Identifier(name), who), name)
        first = project.backup()
        live = project.fingerprint()
        change(project)

        project.restore(first["id"], "--in-place")

        assert project.fingerprint() == live


def test_lost_tables_come_back_on_a_host_that_knows_nothing(
    project: Project, workdir: Path
) -> None:
    project.backup()
    live, media = project.fingerprint(), project.media_fingerprint()
    user = project.database["USER"]
    bare = project.bare_host(workdir / "bare")
    bare.create_database()

    restored = bare.restore("--latest", "--in-place")

    assert bare.fingerprint() == live and bare.media_fingerprint() == media
    assert restored["safety_backup"] is None
    assert bare.database["USER"] == user
    assert len(bare.json("list_backups")) == 1


def test_others_things_are_named_and_nothing_is_touched(
    project: Project, postgresql_server: PostgreSQLServer
) -> None:
    made = project.backup()
    postgresql_server.execute("CREATE TABLE public.theirs (id int)", project.database["NAME"])

    result = project.manage("restore", made["id"], "--in-place", "--no-input", check=False)

    assert result.returncode == 1
    assert "theirs" in result.stderr and "REASSIGN OWNED" in result.stderr


@pytest.mark.longer
def test_kill_at_any_moment_leaves_all_old_or_all_new(
    project: Project, torture_random: random.Random, tell: Callable[[str], None]
) -> None:
    first = project.backup()
    new = (project.fingerprint(), project.media_fingerprint())
    change(project)
    old = (project.fingerprint(), project.media_fingerprint())
    second = project.backup()
    outcomes = []
    command = project.command("restore", first["id"], "--in-place", "--no-input", "--no-color")
    started = time.monotonic()
    subprocess.run(command, cwd=project.root, env=project.environment(), check=True)
    pace = time.monotonic() - started
    for _round in range(KILLS):
        project.restore(second["id"], "--in-place", "--no-safety-backup")
        assert project.fingerprint() == old[0]
        with subprocess.Popen(
            command, cwd=project.root, env=project.environment(), start_new_session=True
        ) as process:
            # The second half: it is there that the transaction runs and commits.
            time.sleep(torture_random.uniform(0.4, 1.0) * pace)
            process.send_signal(signal.SIGKILL)
        project.manage("backup", check=False)  # any command mends
        found = (project.fingerprint(), project.media_fingerprint())
        assert found in (old, new)
        outcomes.append("new" if found == new else "old")
    tell(f"in place, killed: {outcomes.count('old')} old, {outcomes.count('new')} new")


# The target alone


@pytest.fixture
def _databases(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@contextlib.contextmanager
def dumped(project: Project) -> Iterator[tuple[bytes, dict[str, Any]]]:
    assert project.server is not None
    snapshot = PostgreSQLSnapshot("default", project.database, bin_dir=project.server.bin_dir)
    try:
        data = read_whole(snapshot.artifact().open())
        yield data, json.loads(json.dumps(snapshot.facts()))
    finally:
        snapshot.close()


def target_of(project: Project, facts: dict[str, Any]) -> InPlaceTarget:
    assert project.server is not None
    return InPlaceTarget.prepare(
        alias="default",
        settings_dict=project.database,
        restore_id="r1",
        facts=facts,
        bin_dir=project.server.bin_dir,
    )


def opener(data: bytes) -> dict[str, Callable[[], Reader]]:
    return {DUMP: lambda: BytesReader(data)}


@pytest.mark.usefixtures("_databases")
def test_count_that_differs_takes_everything_back(project: Project) -> None:
    with dumped(project) as (data, facts):
        pass
    change(project)
    before = project.fingerprint()
    target = target_of(project, facts)
    target.load(opener(data))
    label = next(label for label, rows in facts["tables"].items() if rows)
    facts["tables"][label] += 1
    assert target.check(facts) == []

    for _attempt in range(2):
        with pytest.raises(RestoreError, match="the backup says"):
            target.swap()

    assert project.fingerprint() == before


@pytest.mark.usefixtures("_databases")
def test_tables_that_came_meanwhile_are_not_taken_for_the_restored_ones(
    project: Project, workdir: Path
) -> None:
    with dumped(project) as (data, facts):
        pass
    bare = project.bare_host(workdir / "bare")
    bare.create_database()
    target = target_of(bare, facts)
    target.load(opener(data))
    target.check(facts)
    bare.execute("CREATE TABLE django_migrations (id int)")  # as a container's start would

    assert target.swap() > 0

    assert bare.fingerprint() == project.fingerprint()


@pytest.mark.usefixtures("_databases")
def test_dump_that_is_cut_off_is_refused_before_anything_is_dropped(project: Project) -> None:
    with dumped(project) as (data, facts):
        pass
    target = target_of(project, facts)
    before = project.fingerprint()

    with pytest.raises(DamagedError):
        target.load(opener(data[: len(data) // 2]))

    with pytest.raises(RestoreError, match="not replaced"):
        target.swap()
    assert project.fingerprint() == before


@pytest.mark.usefixtures("_databases")
def test_another_process_knows_what_became_of_it(project: Project) -> None:
    with dumped(project) as (data, facts):
        pass
    target = target_of(project, facts)
    state = json.loads(json.dumps(target.state))
    assert project.server is not None
    later = InPlaceTarget.from_state(state, project.database, project.server.bin_dir)
    with pytest.raises(RestoreError, match="not replaced"):
        later.swap()
    later.undo()  # there is nothing to undo

    target.load(opener(data))
    target.check(facts)
    assert target.swap() > 0

    assert later.swap() == 0.0
    with pytest.raises(RestoreError, match="safety backup"):
        later.undo()


# Extensions that own tables of user rows


@pytest.fixture
def extended(project: Project) -> Project:
    """A project with an extension that owns two tables: all rows of one are users', some of both.

    As what its script would have done, which an administrator puts on the server.
    """
    assert project.server is not None
    known = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
    if not project.server.execute(known):
        pytest.skip("this server has no extension `vector`")
    user = sql.Identifier(project.database["USER"])
    project.server.execute(
        sql.SQL(
            "CREATE EXTENSION vector;"
            "CREATE TABLE job (id int, note text);"
            "CREATE TABLE kind (id int PRIMARY KEY, ours boolean);"
            "CREATE TABLE of_kind (id int REFERENCES kind);"
            "ALTER EXTENSION vector ADD TABLE job;"
            "ALTER EXTENSION vector ADD TABLE kind;"
            "ALTER EXTENSION vector ADD TABLE of_kind;"
            "UPDATE pg_extension SET extcondition = ARRAY['', 'WHERE NOT ours', ''], extconfig ="
            " ARRAY['job'::regclass, 'kind'::regclass, 'of_kind'::regclass]::oid[]"
            " WHERE extname = 'vector';"
            "INSERT INTO kind VALUES (1, true);"
            "GRANT SELECT ON job, kind, of_kind TO {}"
        ).format(user),
        project.database["NAME"],
    )
    return project


def as_administrator(project: Project, statement: str) -> list[tuple[Any, ...]]:
    assert project.server is not None
    query = sql.SQL(statement).format(sql.Identifier(project.database["USER"]))
    return project.server.execute(query, project.database["NAME"])


USER_ROWS = (
    "INSERT INTO job VALUES (1, 'a'), (2, 'b');"
    "INSERT INTO kind VALUES (2, false); INSERT INTO of_kind VALUES (2)"
)
ALL_ROWS = (
    "SELECT (SELECT array_agg(note ORDER BY id) FROM job),"
    " (SELECT array_agg(id ORDER BY id) FROM kind), (SELECT array_agg(id) FROM of_kind)"
)


@pytest.mark.rare
def test_rows_in_tables_of_an_extension_are_replaced_and_not_doubled(extended: Project) -> None:
    as_administrator(extended, "GRANT INSERT, DELETE ON job, kind, of_kind TO {}")
    as_administrator(extended, USER_ROWS)
    made = extended.backup()
    as_administrator(
        extended, "UPDATE job SET note = 'changed'; INSERT INTO job VALUES (3, 'since')"
    )

    extended.restore(made["id"], "--in-place", "--only=database")

    assert as_administrator(extended, ALL_ROWS) == [(["a", "b"], [1, 2], [2])]
    manifest = json.loads((extended.backups / made["name"] / "manifest.json").read_text())
    counted = manifest["sources"][0]["facts"][DUMP]["tables"]
    assert (counted["public.job"], counted["public.kind"]) == (2, 1)


def test_rows_of_an_extension_that_may_not_be_replaced_are_refused(extended: Project) -> None:
    as_administrator(extended, USER_ROWS)
    made = extended.backup()

    result = extended.manage("restore", made["id"], "--in-place", "--no-input", check=False)

    assert result.returncode == 1
    assert "GRANT SELECT, INSERT, DELETE ON" in result.stderr
    assert as_administrator(extended, ALL_ROWS) == [(["a", "b"], [1, 2], [2])]


@pytest.mark.rare
def test_tables_of_an_extension_without_user_rows_are_left_alone(extended: Project) -> None:
    made = extended.backup()

    extended.restore(made["id"], "--in-place", "--only=database")

    assert as_administrator(extended, ALL_ROWS) == [(None, [1], None)]


@pytest.mark.usefixtures("_databases")
def test_a_row_of_an_extension_that_is_missing_keeps_the_old_database(extended: Project) -> None:
    as_administrator(extended, "GRANT INSERT, DELETE ON job, kind, of_kind TO {}")
    as_administrator(extended, USER_ROWS)
    with dumped(extended) as (data, facts):
        facts["tables"]["public.kind"] = 2
        target = target_of(extended, facts)
        target.load({DUMP: lambda: BytesReader(data)})
        target.check(facts)
        with pytest.raises(RestoreError, match=r"public\.kind has 1 rows, the backup says 2"):
            target.swap()
    assert as_administrator(extended, ALL_ROWS) == [(["a", "b"], [1, 2], [2])]
