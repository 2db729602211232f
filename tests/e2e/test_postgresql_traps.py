"""A role without rights puts traps into a database: none may be sprung with our rights."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder
from pytest_django import DjangoDbBlocker

from mipyme_backup.errors import SourceError
from mipyme_backup.process import Reader
from mipyme_backup.sources.postgresql import (
    InPlaceTarget,
    PostgreSQLSnapshot,
    PostgreSQLTarget,
    preflight,
)
from mipyme_backup.testing import BytesReader, read_whole
from tests.services import PostgreSQLServer

# A superuser may write files where nothing else may be written; what the trap was is in the name.
SPRUNG = """
CREATE FUNCTION public.sprung(trap text) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE pg_catalog.format('COPY (SELECT 1) TO %L', '{mark}' || trap || '.' || current_user);
    RETURN true;
EXCEPTION WHEN insufficient_privilege THEN
    RETURN true;
END $$;
CREATE FUNCTION public.sprung_always(trap text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$BEGIN RETURN public.sprung(trap); END $$;
"""
# (name, arguments, result, body): some as the system's own, for a search_path that has them
# first, some that fit better where the project's schemas are searched at all.
FUNCTIONS = (
    ("format", "text, name, name", "text", "'x'"),
    ("format", "text, name, name, name", "text", "'x'"),
    ("set_config", "text, text, boolean", "text", "'x'"),
    ("current_database", "", "name", "'x'::name"),
    ("pg_export_snapshot", "", "text", "'x'"),
    ("pg_backend_pid", "", "int", "0"),
    ("obj_description", "oid, text", "text", "'x'"),
    ("obj_description", "oid, name", "text", "'x'"),
    ("col_description", "oid, smallint", "text", "'x'"),
    ("has_schema_privilege", "oid, text", "boolean", "true"),
    ("has_table_privilege", "oid, text", "boolean", "true"),
    ("pg_has_role", "oid, text", "boolean", "true"),
    ("has_tablespace_privilege", "oid, text", "boolean", "true"),
    ("has_parameter_privilege", "text, text", "boolean", "true"),
    ("pg_database_size", "name", "bigint", "1::bigint"),
    ("pg_try_advisory_lock", "bigint", "boolean", "true"),
)
OPERATORS = (
    ("=", "oid", "oid"),
    ("=", "name", "name"),
    ("=", "name", "text"),
    ("<>", "name", "name"),
    ("<>", '"char"', '"char"'),
    ("=", '"char"', '"char"'),
    ("=", "oid", "regclass"),
    ("!~", "name", "text"),
    (">", "integer", "integer"),
    ("||", "text", "text"),
)
RELATIONS = ("pg_class", "pg_namespace", "pg_database", "pg_roles", "pg_settings", "pg_proc")


def traps() -> Iterator[str]:
    for number, (name, arguments, result, body) in enumerate(FUNCTIONS):
        yield (
            f"CREATE FUNCTION public.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS "
            f"$$BEGIN PERFORM public.sprung('{name}{number}'); RETURN {body}; END $$"
        )
    for number, (name, left, right) in enumerate(OPERATORS):
        yield (
            f"CREATE FUNCTION public.compare{number}({left}, {right}) RETURNS boolean "
            f"LANGUAGE plpgsql AS $$BEGIN RETURN public.sprung('operator{number}'); END $$"
        )
        yield (
            f"CREATE OPERATOR public.{name} (FUNCTION = public.compare{number}, "
            f"LEFTARG = {left}, RIGHTARG = {right})"
        )
    yield (
        "CREATE FUNCTION public.counted(bigint) RETURNS bigint LANGUAGE plpgsql AS "
        "$$BEGIN PERFORM public.sprung('count'); RETURN $1; END $$"
    )
    yield (
        "CREATE AGGREGATE public.count(*) (SFUNC = pg_catalog.int8inc, STYPE = bigint, "
        "INITCOND = '0', FINALFUNC = public.counted)"
    )
    for name in RELATIONS:
        yield (
            f"CREATE VIEW public.{name} AS SELECT * FROM pg_catalog.{name} "
            f"WHERE public.sprung('view_{name}')"
        )
    # What a load runs as the table's owner, in a session that may not change roles.
    yield "CREATE TABLE public.bait (id int PRIMARY KEY, word text)"
    yield "INSERT INTO public.bait VALUES (1, 'one'), (2, 'two')"
    word = "'index_' OPERATOR(pg_catalog.||) word"
    yield f"CREATE INDEX ON public.bait (public.sprung_always({word}))"
    yield ("CREATE MATERIALIZED VIEW public.stored AS SELECT id, public.sprung('stored') FROM bait")


@dataclass
class Trapped:
    """A database of `owner`, in which `evil` has laid traps, seen by the server's superuser."""

    server: PostgreSQLServer
    name: str
    owner: str
    evil: str
    password: str
    mark: str

    @property
    def settings_dict(self) -> dict[str, Any]:
        return self.server.settings(self.name)

    def run_as(self, role: str, *statements: str) -> None:
        with psycopg.connect(
            host=self.server.host,
            port=self.server.port,
            user=role,
            password=self.password,
            dbname=self.name,
            autocommit=True,
            options="-c search_path=pg_catalog,public",
        ) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def sprung(self) -> list[str]:
        """Return the traps that ran with rights to write files, each with the role that ran it."""
        listed = self.server.execute("SELECT name FROM pg_ls_dir('.') AS listed (name)")
        return sorted(name for (name,) in listed if name.startswith(self.mark))

    def forget(self) -> None:
        """Take the marks of the traps that were sprung on purpose away."""
        ((folder,),) = self.server.execute("SELECT current_setting('data_directory')")
        for name in self.sprung():
            (Path(folder) / name).unlink()

    def snapshot(self) -> PostgreSQLSnapshot:
        return PostgreSQLSnapshot(
            "default",
            self.settings_dict,
            without_rows=frozenset({"unwanted"}),
            bin_dir=self.server.bin_dir,
        )

    def back_up(self) -> tuple[dict[str, Callable[[], Reader]], Any]:
        snapshot = self.snapshot()
        try:
            dump = read_whole(snapshot.artifact().open())
            facts = json.loads(json.dumps(snapshot.facts()))
        finally:
            snapshot.close()
        return {"database.default.dump": lambda: BytesReader(dump)}, facts


@pytest.fixture(autouse=True)
def _real_databases(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@pytest.fixture(params=["public", "search_path"])
def trapped(
    request: pytest.FixtureRequest, postgresql_server: PostgreSQLServer
) -> Iterator[Trapped]:
    """With `search_path` the owner of the database has put the traps before the system's own."""
    server, word = postgresql_server, secrets.token_hex(4)
    made = Trapped(
        server=server,
        name=f"trapped_{word}",
        owner=f"owner_{word}",
        evil=f"evil_{word}",
        password=secrets.token_urlsafe(8),
        mark=f"sprung_{word}_",
    )
    for role in (made.owner, made.evil):
        server.create_role(role, made.password, createdb=False)
    server.create_database(made.name, owner=made.owner)
    ((folder,),) = server.execute("SELECT current_setting('data_directory')")
    try:
        # As `public` was up to PostgreSQL 14.
        made.run_as(made.owner, "GRANT CREATE ON SCHEMA public TO PUBLIC")
        made.run_as(
            made.owner,
            "CREATE TABLE public.item (id serial PRIMARY KEY, name text)",
            "INSERT INTO public.item (name) VALUES ('a'), ('b')",
            "CREATE TABLE public.unwanted (id int)",
            "INSERT INTO public.unwanted VALUES (1)",
            "CREATE TABLE public.django_migrations (id serial PRIMARY KEY, app text, name text,"
            " applied timestamptz DEFAULT '2025-01-01')",
            "INSERT INTO public.django_migrations (app, name) VALUES ('shop', '0001_initial')",
            f"ALTER DATABASE {made.name} SET timezone = 'America/Lima'",
            f"ALTER DATABASE {made.name} SET extra_float_digits = -9",
        )
        made.run_as(made.evil, SPRUNG.format(mark=f"{folder}/{made.mark}"), *traps())
        if request.param == "search_path":
            path = "public, pg_catalog"
            made.run_as(made.owner, f"ALTER DATABASE {made.name} SET search_path = {path}")
        yield made
    finally:
        for (name,) in server.execute("SELECT datname FROM pg_database"):
            if name.startswith(made.name):
                server.drop_database(name)
        server.drop_role(made.evil)
        server.drop_role(made.owner)


def test_a_backup_springs_no_trap(trapped: Trapped) -> None:
    doubtful = preflight("default", trapped.settings_dict, bin_dir=trapped.server.bin_dir)
    assert [line for line in map(str, doubtful) if "lacks fixes" not in line] == []

    _artifacts, facts = trapped.back_up()

    assert facts["tables"]["public.item"] == 2
    assert "public.unwanted" not in facts["tables"]
    assert facts["sequences_behind"] == []
    assert trapped.sprung() == []


def test_the_orm_reads_the_projects_tables_and_springs_no_trap(trapped: Trapped) -> None:
    snapshot = trapped.snapshot()
    try:
        with snapshot.reading() as alias:
            introspection = connections[alias].introspection
            assert {"item", "django_migrations"} <= set(introspection.table_names())
            with connections[alias].cursor() as cursor:
                columns = introspection.get_table_description(cursor, "item")
                cursor.execute("SELECT COUNT(*) FROM item WHERE name IS NOT NULL")
                assert cursor.fetchone() == (2,)
                cursor.execute("SHOW extra_float_digits")
                assert cursor.fetchone() == ("3",)
            assert [column.name for column in columns] == ["id", "name"]
            applied = MigrationRecorder(connections[alias]).applied_migrations()
            assert [*applied] == [("shop", "0001_initial")]
    finally:
        snapshot.close()
    assert trapped.sprung() == []


def test_a_restore_beside_springs_no_trap(trapped: Trapped) -> None:
    artifacts, facts = trapped.back_up()
    target = PostgreSQLTarget.prepare(
        alias="default",
        settings_dict=trapped.settings_dict,
        restore_id=f"r{secrets.token_hex(4)}",
        facts=facts,
        bin_dir=trapped.server.bin_dir,
    )
    target.plan()
    assert target.has_live()
    target.load(artifacts)
    assert target.check(facts) == []
    target.swap()
    target.undo()
    target.discard()
    assert trapped.sprung() == []


def test_a_restore_in_place_springs_no_trap(trapped: Trapped) -> None:
    artifacts, facts = trapped.back_up()
    target = InPlaceTarget.prepare(
        alias="default",
        settings_dict=trapped.settings_dict,
        restore_id=f"r{secrets.token_hex(4)}",
        facts=facts,
        bin_dir=trapped.server.bin_dir,
    )
    target.plan()
    assert target.has_live()
    target.load(artifacts)
    assert target.check(facts) == []
    target.swap()
    assert target.swap_has_begun()
    assert trapped.sprung() == []


def test_counting_springs_no_trap_that_a_plan_would(
    trapped: Trapped,
) -> None:
    """The planner runs constant parts of indexes and statistics; any query of the table does it."""
    trapped.run_as(
        trapped.evil,
        "CREATE TABLE public.planned (id serial PRIMARY KEY, word text)",
        "INSERT INTO public.planned (word) SELECT E'a\\nb' FROM generate_series(1, 3)",
        "INSERT INTO public.planned (id, word) VALUES (7, NULL)",
        "CREATE INDEX ON public.planned ((public.sprung_always('expression')))",
        "CREATE INDEX ON public.planned (id) WHERE public.sprung_always('predicate')",
        "CREATE STATISTICS public.known ON id, (public.sprung_always('statistics'))"
        " FROM public.planned",
        "CREATE TABLE public.nothing ()",
        "CREATE TABLE public.parts (id serial, word text) PARTITION BY RANGE (id)",
        "CREATE TABLE public.part PARTITION OF public.parts FOR VALUES FROM (0) TO (9)",
        "INSERT INTO public.parts VALUES (5)",
        "CREATE INDEX ON public.part ((public.sprung_always('of_part')))",
    )
    # A plain query is a trap indeed.
    trapped.server.execute("SELECT count(*) FROM public.planned", trapped.name)
    assert {"expression", "predicate", "statistics"} <= {
        name.removeprefix(trapped.mark).split(".")[0] for name in trapped.sprung()
    }
    trapped.forget()

    artifacts, facts = trapped.back_up()

    assert trapped.sprung() == []
    counted = {"planned": 4, "nothing": 0, "part": 1}
    assert facts["tables"].items() >= {f"public.{k}": v for k, v in counted.items()}.items()
    assert facts["sequences_behind"] == ["public.parts_id_seq", "public.planned_id_seq"]
    target = PostgreSQLTarget.prepare(
        alias="default",
        settings_dict=trapped.settings_dict,
        restore_id=f"r{secrets.token_hex(4)}",
        facts=facts,
        bin_dir=trapped.server.bin_dir,
    )
    target.plan()
    target.load(artifacts)
    assert target.check(facts) == []
    target.discard()
    assert trapped.sprung() == []


def test_a_role_without_rights_makes_no_operator_class(trapped: Trapped) -> None:
    """An index of its own would call it in each plan; the server lets superusers alone make one."""
    for role in (trapped.evil, trapped.owner):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            trapped.run_as(
                role,
                "CREATE OPERATOR CLASS public.mine FOR TYPE int USING btree AS"
                " FUNCTION 1 pg_catalog.btint4cmp(int, int)",
            )


def test_a_superusers_restore_is_warned_of_and_fires_no_event_trigger(trapped: Trapped) -> None:
    """Only a superuser makes one, but another role may own, and so replace, its function."""
    trapped.run_as(
        trapped.evil,
        "CREATE FUNCTION public.on_event() RETURNS event_trigger LANGUAGE plpgsql"
        " AS $$BEGIN PERFORM public.sprung('event'); END $$",
        "CREATE MATERIALIZED VIEW public.refreshed AS SELECT 1 AS id",
    )
    trapped.server.execute(
        "CREATE EVENT TRIGGER watched ON ddl_command_start EXECUTE FUNCTION public.on_event();"
        "CREATE FOREIGN DATA WRAPPER far;"
        f"GRANT USAGE ON FOREIGN DATA WRAPPER far TO {trapped.evil}",
        trapped.name,
    )
    trapped.forget()
    trapped.run_as(  # one that no session can read: it has no handler
        trapped.evil,
        "CREATE SERVER away FOREIGN DATA WRAPPER far",
        "CREATE FOREIGN TABLE public.foreign_bait (id int DEFAULT public.sprung('x')::int"
        " CHECK (public.sprung_always('foreign'))) SERVER away",
    )
    artifacts, facts = trapped.back_up()
    target = PostgreSQLTarget.prepare(
        alias="default",
        settings_dict=trapped.settings_dict,
        restore_id=f"r{secrets.token_hex(4)}",
        facts=facts,
        bin_dir=trapped.server.bin_dir,
    )

    told = [str(line) for line in target.plan()]
    target.load(artifacts)
    assert target.check(facts) == []

    assert any(trapped.evil in line and "superuser" in line for line in told)
    side = target.side_settings()["NAME"]
    assert trapped.server.execute("SELECT evtname FROM pg_event_trigger", side) == [("watched",)]
    target.discard()
    if trapped.server.major >= 17:
        assert trapped.sprung() == []


def test_a_table_that_is_swapped_for_a_view_is_refused(trapped: Trapped) -> None:
    """A schema can be renamed while its tables are locked."""
    trapped.server.execute(
        f"GRANT CREATE ON DATABASE {trapped.name} TO {trapped.evil}",
    )
    trapped.run_as(trapped.evil, "CREATE SCHEMA mine", "CREATE TABLE mine.bait AS SELECT 1 AS id")
    snapshot = trapped.snapshot()
    try:
        trapped.run_as(
            trapped.evil,
            "ALTER SCHEMA mine RENAME TO was",
            "CREATE SCHEMA mine",
            "CREATE VIEW mine.bait AS SELECT 1 AS id WHERE public.sprung('view')",
        )
        with pytest.raises(SourceError, match="bait"), snapshot.reading() as alias:
            connections[alias].cursor().execute("SELECT id FROM mine.bait")
        with pytest.raises(SourceError, match="bait"):
            snapshot.facts()
    finally:
        snapshot.close()
    assert trapped.sprung() == []
