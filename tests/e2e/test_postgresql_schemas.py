"""Tables of installed models in schemas that bare names do not reach: tenants, second aliases."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connections
from django.test import modify_settings, override_settings
from pytest_django import DjangoDbBlocker

from mipyme_backup.drills import users
from mipyme_backup.errors import RestoreError
from mipyme_backup.sources.base import View
from mipyme_backup.sources.file_fields import NamedFile, named_files
from mipyme_backup.sources.fixtures import FixturesSource, FixturesTarget
from mipyme_backup.sources.postgresql import PostgreSQLSnapshot
from mipyme_backup.testing import BytesReader
from tests.services import PostgreSQLServer
from tests.unit.sources.fixture_app.databases import known, migrated, read_all
from tests.unit.sources.test_file_fields import file_names

APP = "tests.unit.sources.fixture_app"
TENANT = 'ten"ant ñ.1'
TABLES = (
    "auth_user",
    "auth_group",
    "auth_user_groups",
    "auth_user_user_permissions",
    "fixture_app_upload",
    "fixture_app_vault",
    "fixture_app_receipt",
)
# It fails where it is run with other rights than its owner's.
TRAP = """
    CREATE FUNCTION {schema}.sprung(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN
        IF current_user <> '{owner}' THEN RAISE EXCEPTION 'sprung as %', current_user; END IF;
        RETURN $1;
    END $$
"""


@pytest.fixture(autouse=True)
def _own_apps(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    apps_changed = {"append": APP, "remove": "tests.zoo"}
    with modify_settings(INSTALLED_APPS=apps_changed), django_db_blocker.unblock():
        yield


@pytest.fixture
def entry(postgresql_server: PostgreSQLServer, postgresql_database: str) -> dict[str, Any]:
    return postgresql_server.settings(postgresql_database)


@pytest.fixture
def live(entry: dict[str, Any]) -> Iterator[str]:
    with migrated("shop", entry) as alias:
        yield alias


@pytest.fixture
def run(postgresql_server: PostgreSQLServer, entry: dict[str, Any]) -> Callable[[str], Any]:
    def execute(statement: str) -> Any:
        return postgresql_server.execute(statement, entry["NAME"])

    return execute


@pytest.fixture
def backed_up(
    postgresql_server: PostgreSQLServer, live: str
) -> Callable[..., dict[str, tuple[bytes, dict[str, Any], list[str]]]]:
    """Call it to save the fixtures: content, facts and warnings by artifact."""

    def save(**options: Any) -> dict[str, tuple[bytes, dict[str, Any], list[str]]]:
        snapshot = PostgreSQLSnapshot(
            live, connections.settings[live], bin_dir=postgresql_server.bin_dir
        )
        try:
            snapshot.facts()
            saved = {}
            for artifact in FixturesSource(**options).artifacts(View(snapshots={live: snapshot})):
                content = read_all(artifact.open())
                saved[artifact.name] = (
                    content,
                    dict(artifact.facts()),
                    [str(warning) for warning in artifact.warnings()],
                )
            return saved
        finally:
            snapshot.close()

    return save


def quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def tenant(name: str, tables: tuple[str, ...] = TABLES) -> str:
    """SQL for a schema with empty tables as those of ``public``."""
    schema = quoted(name)
    made = "".join(f"CREATE TABLE {schema}.{t} (LIKE public.{t} INCLUDING ALL);" for t in tables)
    return f"CREATE SCHEMA {schema}; {made}"


def user(schema: str, key: int, name: str) -> str:
    return (
        f"INSERT INTO {quoted(schema)}.auth_user (id, password, is_superuser, username, first_name,"
        " last_name, email, is_staff, is_active, date_joined)"
        f" VALUES ({key}, '!', false, '{name}', '', '', '', false, true, now());"
    )


def usernames(content: bytes) -> list[str]:
    rows = [json.loads(line) for line in content.splitlines()]
    return [row["fields"]["username"] for row in rows if row["model"] == "auth.user"]


def test_each_schema_has_a_fixture_of_its_own_rows(
    live: str, run: Callable[[str], Any], backed_up: Callable[..., Any]
) -> None:
    User.objects.using(live).create(pk=1, username="of public")
    permission = Permission.objects.using(live).get(codename="add_group")
    run(tenant(TENANT) + user(TENANT, 1, "of the tenant") + tenant("empty"))
    run(
        f"INSERT INTO {quoted(TENANT)}.auth_user_user_permissions (user_id, permission_id)"
        f" VALUES (1, {permission.pk})"
    )

    saved = backed_up()

    escaped = "fixtures.shop.ten%22ant%20%C3%B1%2E1.jsonl"
    assert [*saved] == ["fixtures.shop.jsonl", escaped]
    assert usernames(saved["fixtures.shop.jsonl"][0]) == ["of public"]
    content, facts, warnings = saved[escaped]
    assert usernames(content) == ["of the tenant"]
    assert b'"permission":["add_group","auth","group"]' in content
    assert (facts["alias"], facts["schema"]) == (live, TENANT)
    assert facts["models"]["auth.User"] == 1
    assert facts["left_out"] == {}
    assert warnings == []


def test_what_the_schemas_leave_out_is_said_once_with_the_rows(
    live: str, run: Callable[[str], Any], backed_up: Callable[..., Any]
) -> None:
    run("".join(tenant(f"t{number}") for number in range(7)))
    for number in range(7):
        run(
            f"INSERT INTO t{number}.fixture_app_vault (content)"
            " SELECT 'x' FROM generate_series(1, 9)"
        )
        run(f"INSERT INTO t{number}.fixture_app_receipt (vault_id) VALUES (1), (2)")

    saved = backed_up(max_rows=8)

    _content, facts, _warnings = saved["fixtures.shop.t3.jsonl"]
    assert facts["left_out_rows"] == {"fixture_app.Vault": 9, "fixture_app.Receipt": 2}
    assert "refers to fixture_app.Vault" in facts["left_out"]["fixture_app.Receipt"]
    told = [warning for *_rest, warnings in saved.values() for warning in warnings]
    assert sorted(told) == [
        f"fixtures leave out fixture_app.{what} rows are left out, in 7 schemas of shop:"
        f" t0, t1, t2, t3, t4, …"
        for what in (
            "Receipt: it refers to fixture_app.Vault, which is left out; 14",
            "Vault: it has more than 8 rows; 63",
        )
    ]


def test_rows_may_refer_to_those_that_bare_names_reach(
    live: str, run: Callable[[str], Any], backed_up: Callable[..., Any]
) -> None:
    from tests.unit.sources.fixture_app.models import Vault

    Vault.objects.using(live).create(pk=5, content="shared")
    run(tenant("t", ("fixture_app_receipt",)))
    run("INSERT INTO t.fixture_app_receipt (vault_id) VALUES (5)")

    assert backed_up()["fixtures.shop.t.jsonl"][1]["models"] == {"fixture_app.Receipt": 1}
    left_out = backed_up(max_rows=0)["fixtures.shop.t.jsonl"][1]["left_out"]
    assert [*left_out] == ["fixture_app.Receipt"]


@pytest.fixture
def strange(
    postgresql_server: PostgreSQLServer, live: str, run: Callable[[str], Any]
) -> Iterator[str]:
    """A role that owns a schema of the same name, with traps."""
    role = f"strange_{secrets.token_hex(4)}"
    postgresql_server.create_role(role, "x", createdb=False)
    try:
        run(tenant(role) + user(role, 1, "unread"))
        run(f"ALTER SCHEMA {role} OWNER TO {role}")
        for table in TABLES:
            run(f"ALTER TABLE {role}.{table} OWNER TO {role}")
        columns = "public, private, elsewhere"
        run(f"INSERT INTO {role}.fixture_app_upload ({columns}) VALUES ('f', '', '')")
        run(f"SET ROLE {role};" + TRAP.format(schema=role, owner=role))
        for table, column in (("auth_user", "username"), ("fixture_app_upload", "public")):
            run(
                f"SET ROLE {role};"
                f"CREATE INDEX ON {role}.{table} ({column}) WHERE {role}.sprung('x') = {column}"
            )
        yield role
    finally:
        run(f"DROP SCHEMA {role} CASCADE")
        postgresql_server.drop_role(role)


def test_a_strangers_table_is_left_out_and_its_functions_are_not_run(
    strange: str, run: Callable[[str], Any], backed_up: Callable[..., Any]
) -> None:
    with pytest.raises(psycopg.Error, match="sprung as"):
        run(f"SELECT 1 FROM {strange}.auth_user")

    _content, facts, warnings = backed_up()[f"fixtures.shop.{strange}.jsonl"]

    reason = f"its table belongs to {strange}, whose functions would run"
    assert reason in facts["left_out"]["auth.User"]
    assert facts["left_out_rows"]["auth.User"] == 1
    assert any(reason in warning and "1 rows are left out" in warning for warning in warnings)


def test_the_names_of_files_come_from_every_schema(
    strange: str, live: str, run: Callable[[str], Any], postgresql_server: PostgreSQLServer
) -> None:
    from tests.unit.sources.fixture_app.models import Upload

    odd = "tab\there \\N back\\slash\nñ.txt"
    Upload.objects.using(live).create(public="a.txt", private="b.txt", elsewhere="c.txt")
    run(tenant(TENANT))
    with postgresql_server.connect(connections.settings[live]["NAME"]) as other:
        other.execute(
            f"INSERT INTO {quoted(TENANT)}.fixture_app_upload (public, private, elsewhere)"
            " VALUES (%s, '', 'd')".encode(),
            [odd],
        )
    public = Upload._meta.get_field("public")
    elsewhere = Upload._meta.get_field("elsewhere")
    snapshot = PostgreSQLSnapshot(
        live, connections.settings[live], bin_dir=postgresql_server.bin_dir
    )
    try:
        with snapshot.reading() as using:
            found = [*named_files(using)]
            names = [*file_names(using)]
    finally:
        snapshot.close()

    assert NamedFile(None, public, "a.txt") in found
    assert NamedFile(TENANT, public, odd) in found
    assert NamedFile(TENANT, elsewhere, "d") in found
    assert NamedFile(strange, public, "f") in found
    assert sorted(names) == sorted(["a.txt", "private/papers/b.txt", odd, "f"])
    assert [*named_files(live)] == found  # as a drill reads it


def test_a_model_that_names_its_schema_is_read_there(
    live: str, run: Callable[[str], Any], backed_up: Callable[..., Any]
) -> None:
    from tests.unit.sources.fixture_app.models import Upload

    run(tenant("archive"))
    Upload.objects.using(live).create(public="of public", private="", elsewhere="")
    run("INSERT INTO archive.fixture_app_upload (public, private, elsewhere) VALUES ('x','','')")
    table = Upload._meta.db_table
    Upload._meta.db_table = f'archive"."{table}'
    try:
        names = [*file_names(live)]
        saved = backed_up()
    finally:
        Upload._meta.db_table = table

    assert names == ["x"]
    assert [*saved] == ["fixtures.shop.jsonl"]
    assert saved["fixtures.shop.jsonl"][1]["models"]["fixture_app.Upload"] == 1


class ToReports:
    """Keeps groups in another alias, and uploads in none."""

    def allow_migrate(self, db: str, app_label: str, model_name: str = "", **_hints: Any) -> Any:
        if model_name == "group":
            return db == "reports"
        return db == "nowhere" if model_name == "upload" else None


def test_a_model_of_another_alias_of_the_same_database_is_in_its_fixture(
    live: str, entry: dict[str, Any], backed_up: Callable[..., Any]
) -> None:
    from tests.unit.sources.fixture_app.models import Upload

    Group.objects.using(live).create(name="of reports")
    Upload.objects.using(live).create(public="x", private="", elsewhere="")
    with (
        override_settings(DATABASE_ROUTERS=[f"{__name__}.ToReports"]),
        known("reports", {**entry, "HOST": entry["HOST"]}),
    ):
        content, facts, warnings = backed_up()["fixtures.shop.jsonl"]

    assert b"of reports" in content
    assert facts["left_out_rows"] == {"fixture_app.Upload": 1}
    (warning,) = warnings
    assert warning == (
        "fixtures leave out fixture_app.Upload: DATABASE_ROUTERS do not keep it in the database"
        " shop; 1 rows are left out"
    )


def test_many_schemas_are_found_by_few_queries(
    live: str, run: Callable[[str], Any], postgresql_server: PostgreSQLServer
) -> None:
    def queries() -> int:
        made: list[str] = []

        def count(execute: Any, sql: str, *rest: Any) -> Any:
            made.append(sql)
            return execute(sql, *rest)

        with connections[live].execute_wrapper(count):
            assert [*file_names(live)] == []
        return len(made)

    run(tenant("first", ("auth_user",)))
    few = queries()
    run("".join(tenant(f"t{number}", ("auth_user",)) for number in range(50)))

    assert queries() == few


def test_a_back_end_that_searches_a_schema_of_its_own_does_not_have_our_sessions_search_it(
    postgresql_server: PostgreSQLServer, entry: dict[str, Any]
) -> None:
    entry = {**entry, "ENGINE": "tests.e2e.tenant_backend"}
    with migrated("shop", entry) as alias:
        postgresql_server.execute(tenant("t") + user("t", 1, "x"), entry["NAME"])
        snapshot = PostgreSQLSnapshot(alias, entry, bin_dir=postgresql_server.bin_dir)
        try:
            with snapshot._connection.cursor() as cursor:
                cursor.execute("SHOW search_path")
                assert cursor.fetchone() == ('""',)
            snapshot.facts()
            view = View(snapshots={alias: snapshot})
            saved = {a.name: read_all(a.open()) for a in FixturesSource().artifacts(view)}
        finally:
            snapshot.close()
        _restore(alias, "t", saved["fixtures.shop.t.jsonl"].replace(b'"x"', b'"restored"'))

        assert usernames(saved["fixtures.shop.t.jsonl"]) == ["x"]
        assert postgresql_server.execute("SELECT username FROM t.auth_user", entry["NAME"]) == [
            ("restored",)
        ]


def test_a_fixture_goes_back_into_its_schema_and_into_no_other(
    live: str, run: Callable[[str], Any], backed_up: Callable[..., Any]
) -> None:
    User.objects.using(live).create(pk=1, username="of public")
    run(tenant(TENANT) + user(TENANT, 1, "before"))
    content, facts, _warnings = backed_up()["fixtures.shop.ten%22ant%20%C3%B1%2E1.jsonl"]
    run(f"UPDATE {quoted(TENANT)}.auth_user SET username = 'after'")

    target = _restore(live, TENANT, content)

    assert run(f"SELECT username FROM {quoted(TENANT)}.auth_user") == [("before",)]
    assert run("SELECT username FROM public.auth_user") == [("of public",)]
    assert target.check(facts) == []
    assert any(TENANT in str(line) for line in target.plan())
    assert target.has_live()


class ToShop:
    """Keeps everything in the database of the test."""

    def db_for_read(self, _model: Any, **_hints: Any) -> str:
        return "shop"

    db_for_write = db_for_read


def test_a_drill_works_with_users_where_all_that_refers_to_them_is(
    live: str, run: Callable[[str], Any]
) -> None:
    tables = (*TABLES, "django_admin_log")
    run(tenant("other", ("django_admin_log",)) + tenant("t", tables) + user("t", 1000, "x"))
    run("DROP TABLE public.django_admin_log")

    with override_settings(DATABASE_ROUTERS=[f"{__name__}.ToShop"]):
        assert [*users.login()] == []
        assert [*users.crud()] == []

    assert run("SELECT username FROM t.auth_user") == [("x",)]
    assert run("SELECT count(*) FROM public.auth_user") == [(0,)]


def test_a_schema_that_is_not_there_is_refused_with_what_to_do(live: str) -> None:
    target = FixturesTarget.prepare(alias=live, schema="gone")

    with pytest.raises(RestoreError, match="has no schema gone") as caught:
        target.plan()
    assert "migrate_schemas --schema=gone" in str(caught.value.hint)


def test_rows_whose_table_the_schema_lacks_do_not_go_into_another(
    live: str, run: Callable[[str], Any], backed_up: Callable[..., Any]
) -> None:
    run(tenant("t") + user("t", 7, "x"))
    content = backed_up()["fixtures.shop.t.jsonl"][0]
    run("DROP TABLE t.auth_user")

    with pytest.raises(RestoreError, match=r"lacks the tables of auth\.User"):
        _restore(live, "t", content)
    assert run("SELECT count(*) FROM public.auth_user") == [(0,)]


def _restore(alias: str, schema: str, content: bytes) -> FixturesTarget:
    from mipyme_backup.sources.fixtures.selection import artifact_name

    target = FixturesTarget.prepare(alias=alias, schema=schema)
    target.plan()
    target.load({artifact_name(alias, schema): lambda: BytesReader(content)})
    target.swap()
    return target
