"""A role for the site, one that backs up, one that restores: as docs/howto/postgresql.md says."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_django import DjangoDbBlocker

from mipyme_backup.errors import BackupError, PreflightError, RestoreError, SourceError
from mipyme_backup.sources.database import DatabaseSource
from mipyme_backup.sources.postgresql import (
    InPlaceTarget,
    PostgreSQLSnapshot,
    PostgreSQLTarget,
    preflight,
)
from mipyme_backup.sources.postgresql.advisory import AdvisoryLock
from mipyme_backup.testing import BytesReader, read_whole
from tests.e2e.project import postgresql_project
from tests.services import PostgreSQLServer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "postgresql.md"
SCHEMA = """
CREATE TABLE item (id serial PRIMARY KEY, name text);
INSERT INTO item (name) VALUES ('a'), ('b');
CREATE TABLE private (id int);
INSERT INTO private VALUES (1);
ALTER TABLE private ENABLE ROW LEVEL SECURITY;
"""


@dataclass
class Shop:
    server: PostgreSQLServer
    name: str

    def sql(self, statements: str) -> list[tuple[Any, ...]]:
        """Run as administrator; `shop` in it stands for the names of this test."""
        return self.server.execute(self.real(statements), self.name)

    def real(self, text: str) -> str:
        return re.sub(r"\bshop", self.name, text)

    def settings(self, role: str, password: str) -> dict[str, Any]:
        return self.server.settings(self.name, USER=f"{self.name}{role}", PASSWORD=password)

    @property
    def backup(self) -> dict[str, Any]:
        return self.settings("_backup", "one")

    @property
    def restore(self) -> dict[str, Any]:
        return self.settings("_restore", "another")

    def check(self) -> None:
        preflight("default", self.backup, bin_dir=self.server.bin_dir)

    def snapshot(self) -> PostgreSQLSnapshot:
        return PostgreSQLSnapshot("default", self.backup, bin_dir=self.server.bin_dir)

    def facts(self) -> Any:
        snapshot = self.snapshot()
        try:
            return json.loads(json.dumps(snapshot.facts()))
        finally:
            snapshot.close()

    def target(self, facts: Any, site: dict[str, Any] | None = None) -> PostgreSQLTarget:
        return PostgreSQLTarget.prepare(
            alias="default",
            settings_dict=self.restore,
            site=site,
            restore_id=f"r{secrets.token_hex(4)}",
            facts=facts,
            bin_dir=self.server.bin_dir,
        )


@pytest.fixture
def shop(postgresql_server: PostgreSQLServer, django_db_blocker: DjangoDbBlocker) -> Iterator[Shop]:
    """A shop with the roles that the documentation's own SQL makes."""
    made = Shop(postgresql_server, f"shop_{secrets.token_hex(4)}")
    postgresql_server.create_role(made.name, "site", createdb=False)
    postgresql_server.create_database(made.name, owner=made.name)
    granted = re.search(r"```sql\n(CREATE ROLE shop_backup.*?)```", PAGE.read_text(), re.DOTALL)
    assert granted
    try:
        made.sql("SET ROLE shop;" + SCHEMA)
        made.sql(granted[1])
        with django_db_blocker.unblock():
            yield made
    finally:
        for (name,) in postgresql_server.execute("SELECT datname FROM pg_database"):
            if name.startswith(made.name):
                postgresql_server.drop_database(name)
        for role in ("_backup", "_restore", ""):
            postgresql_server.drop_role(f"{made.name}{role}")


def test_one_role_backs_up_and_another_restores(shop: Shop) -> None:
    shop.check()
    snapshot = shop.snapshot()
    try:
        dump = read_whole(snapshot.artifact().open())
        facts = json.loads(json.dumps(snapshot.facts()))
    finally:
        snapshot.close()
    assert facts["tables"] == {"public.item": 2, "public.private": 1}
    shop.sql("DROP TABLE item")

    target = shop.target(facts)
    target.plan()
    target.load({"database.default.dump": lambda: BytesReader(dump)})
    assert target.check(facts) == []
    target.swap()

    assert shop.sql("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'item'") == [
        (shop.name,)
    ]
    assert shop.sql("SET ROLE shop; SELECT count(*) FROM item") == [(2,)]
    target.undo()
    target.discard()


@pytest.mark.parametrize(
    ("taken", "named"),
    [
        ("REVOKE pg_read_all_data FROM shop_backup", "pg_read_all_data"),
        (
            "REVOKE pg_read_all_data FROM shop_backup;"  # noqa: ISC004
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO shop_backup",
            "GRANT pg_read_all_data TO",
        ),
        ("ALTER ROLE shop_backup NOBYPASSRLS", "BYPASSRLS"),
        ("SET ROLE shop; SELECT lo_from_bytea(0, 'x')", "GRANT SELECT ON LARGE OBJECT"),
    ],
)
def test_what_a_backup_may_not_read_is_named_with_its_grant(
    shop: Shop, taken: str, named: str
) -> None:
    if "ALL TABLES" in taken:
        taken += "; REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM shop_backup"
    shop.sql(taken)

    with pytest.raises(SourceError) as caught:
        shop.check()

    assert named in str(caught.value.hint)
    if match := re.search(r"GRANT SELECT ON LARGE OBJECT \d+ TO .*?;", str(caught.value.hint)):
        shop.server.execute(match[0], shop.name)
        shop.check()


@pytest.mark.parametrize(
    ("taken", "named"),
    [
        ("ALTER ROLE shop_restore NOCREATEDB", "CREATEDB"),
        ("REVOKE shop FROM shop_restore", "GRANT"),
    ],
)
def test_what_a_restore_may_not_do_is_named_with_its_grant(
    shop: Shop, taken: str, named: str
) -> None:
    facts = shop.facts()
    shop.sql(taken)

    with pytest.raises(RestoreError) as caught:
        shop.target(facts).plan()

    assert named in str(caught.value.hint)


@pytest.mark.parametrize(
    ("taken", "object_", "grant"),
    [
        (
            "REVOKE CONNECT ON DATABASE shop FROM PUBLIC",
            "shop",
            'GRANT CONNECT ON DATABASE "shop" TO "shop_backup"',
        ),
        (
            "REVOKE USAGE ON SCHEMA hidden FROM shop_backup",
            "hidden.kept",
            'GRANT USAGE ON SCHEMA "hidden" TO "shop_backup"',
        ),
        (
            "REVOKE SELECT ON hidden.kept FROM shop_backup",
            "hidden.kept",
            'GRANT SELECT ON TABLE "hidden"."kept" TO "shop_backup"',
        ),
        (
            "REVOKE SELECT ON SEQUENCE public.item_id_seq FROM shop_backup",
            "public.item_id_seq",
            'GRANT SELECT ON SEQUENCE "public"."item_id_seq" TO "shop_backup"',
        ),
        (
            "SET ROLE shop; SELECT lo_from_bytea(4711, 'x')",
            "4711",
            'GRANT SELECT ON LARGE OBJECT 4711 TO "shop_backup"',
        ),
        (
            "ALTER ROLE shop_backup NOBYPASSRLS",
            "public.private",
            'ALTER ROLE "shop_backup" BYPASSRLS',
        ),
    ],
    ids=["connect", "schema", "table", "sequence", "large object", "row security"],
)
def test_one_missing_right_is_named_with_the_statement_that_is_enough(
    shop: Shop, taken: str, object_: str, grant: str
) -> None:
    """The role has each right by itself, and no more than a dump needs: SELECT locks a table."""
    shop.sql(
        "REVOKE pg_read_all_data FROM shop_backup; SET ROLE shop; CREATE SCHEMA hidden;"
        "CREATE TABLE hidden.kept (id int);"
        "GRANT USAGE ON SCHEMA public, hidden TO shop_backup;"
        "GRANT SELECT ON ALL TABLES IN SCHEMA public, hidden TO shop_backup;"
        "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO shop_backup"
    )
    shop.check()
    shop.sql(taken)

    with pytest.raises(BackupError) as caught:
        shop.check()

    assert shop.real(object_) in str(caught.value.message)
    statement = shop.real(grant)
    assert f"{statement};" in str(caught.value.hint)
    shop.server.execute(statement, shop.name)
    shop.check()
    snapshot = shop.snapshot()
    try:
        assert read_whole(snapshot.artifact().open())
    finally:
        snapshot.close()


def test_of_many_missing_rights_some_are_named(shop: Shop) -> None:
    shop.sql(
        "REVOKE pg_read_all_data FROM shop_backup; SET ROLE shop;"
        + "".join(f"CREATE TABLE more_{number} (id serial);" for number in range(9))
    )

    with pytest.raises(SourceError) as caught:
        shop.check()

    hint = str(caught.value.hint)
    assert hint.count("GRANT SELECT ON TABLE") == 5
    assert "… (+" in hint
    shop.server.execute(re.findall(r"GRANT pg_read_all_data TO [^;]+;", hint)[0])
    shop.check()


def test_a_restore_that_reaches_no_database_of_the_server_is_told_the_grant(shop: Shop) -> None:
    facts = shop.facts()
    shop.server.execute("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC")
    try:
        with pytest.raises(PreflightError) as caught:
            shop.target(facts).plan()
        assert "may not connect to the database postgres" in str(caught.value)
        shop.server.execute(str(caught.value.hint).partition(": ")[2])
        shop.target(facts).plan()
        shop.server.execute(f"REVOKE CONNECT ON DATABASE postgres FROM {shop.name}_restore")
    finally:
        shop.server.execute("GRANT CONNECT ON DATABASE postgres, template1 TO PUBLIC")


@pytest.mark.parametrize(
    ("taken", "object_", "statement"),
    [
        (
            "ALTER ROLE shop_restore NOCREATEDB",
            "shop_restore",
            'ALTER ROLE "shop_restore" CREATEDB',
        ),
        ("REVOKE shop FROM shop_restore", "shop", 'GRANT "shop" TO "shop_restore"'),
        ("GRANT shop TO shop_restore WITH SET FALSE", "shop", 'GRANT "shop" TO "shop_restore"'),
        ("GRANT shop TO shop_restore WITH INHERIT FALSE", "shop", 'GRANT "shop" TO "shop_restore"'),
    ],
    ids=["createdb", "membership", "set", "inherit"],
)
def test_what_a_restore_lacks_is_told_with_the_statement_that_is_enough(
    shop: Shop, taken: str, object_: str, statement: str
) -> None:
    if "FALSE" in taken and shop.server.major < 16:
        pytest.skip("a membership has no options before PostgreSQL 16")
    facts = shop.facts()
    shop.sql(taken)

    with pytest.raises(RestoreError) as caught:
        shop.target(facts).plan()

    assert shop.real(object_) in str(caught.value.message)
    granted = re.findall(rf"{shop.real(statement)}[^;]*;", str(caught.value.hint))
    shop.server.execute(granted[0])
    shop.target(facts).plan()


def test_a_foreign_data_wrapper_that_only_a_superuser_makes_is_named_before(shop: Shop) -> None:
    shop.sql(
        "CREATE FOREIGN DATA WRAPPER unused; CREATE FOREIGN DATA WRAPPER far;"
        "GRANT USAGE ON FOREIGN DATA WRAPPER far TO shop"
    )
    shop.target(shop.facts()).plan()
    shop.sql("SET ROLE shop; CREATE SERVER away FOREIGN DATA WRAPPER far")

    with pytest.raises(RestoreError, match=r"may not create: far$"):
        shop.target(shop.facts()).plan()


def test_a_plan_tells_when_the_site_would_not_own_what_is_restored(shop: Shop) -> None:
    facts = shop.facts()
    shop.server.drop_database(shop.name)
    shop.server.execute(f"REVOKE {shop.name} FROM {shop.name}_restore")

    told = [str(line) for line in shop.target(facts).plan()]

    (line,) = [line for line in told if "GRANT" in line]
    assert f"{shop.name} will belong to {shop.name}_restore and not to {shop.name}" in line
    shop.server.execute(line[line.index("GRANT") :])
    assert not [line for line in shop.target(facts).plan() if "GRANT" in str(line)]


def test_a_restore_in_place_names_what_belongs_to_others_and_who_they_are(shop: Shop) -> None:
    facts = shop.facts()
    other = f"{shop.name}_backup"
    shop.sql("ALTER TABLE item OWNER TO shop_backup; ALTER TABLE private OWNER TO shop_backup")

    def plan() -> None:
        InPlaceTarget.prepare(
            alias="default",
            settings_dict=shop.settings("_restore", "another"),
            restore_id=f"r{secrets.token_hex(4)}",
            facts=facts,
            bin_dir=shop.server.bin_dir,
        ).plan()

    with pytest.raises(RestoreError) as caught:
        plan()
    assert f"item ({other})" in str(caught.value.message)
    statement = str(caught.value.hint).partition(": ")[2]
    assert statement.startswith(f'REASSIGN OWNED BY "{other}" TO')
    shop.server.execute(statement, shop.name)
    plan()


def restored(shop: Shop, site: dict[str, Any]) -> PostgreSQLTarget:
    """Return a target with a backup loaded; `site` is the site's entry of ``DATABASES``."""
    snapshot = shop.snapshot()
    try:
        dump = read_whole(snapshot.artifact().open())
        facts = json.loads(json.dumps(snapshot.facts()))
    finally:
        snapshot.close()
    target = shop.target(facts, site)
    target.plan()
    target.load({"database.default.dump": lambda: BytesReader(dump)})
    assert target.check(facts) == []
    return target


@pytest.mark.parametrize("role", ["", "_clerk"], ids=["owner", "another"])
def test_the_sites_login_uses_what_was_restored_before_it_is_live(shop: Shop, role: str) -> None:
    clerk = f"{shop.name}_clerk"
    shop.server.create_role(clerk, "site", createdb=False)
    try:
        shop.sql("REVOKE CONNECT ON DATABASE shop FROM PUBLIC; GRANT SELECT ON item TO shop_clerk")
        shop.sql("GRANT CONNECT ON DATABASE shop TO shop_backup, shop_clerk")
        before = privileges(shop)
        target = restored(shop, shop.settings(role, "site"))

        side = target.side_settings()
        assert (side["USER"], side["PASSWORD"]) == (f"{shop.name}{role}", "site")
        owners = shop.server.execute(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'", side["NAME"]
        )
        assert owners == [(shop.name,)]
        target.swap()
        assert privileges(shop) == before
        target.undo()
        target.discard()
    finally:
        shop.sql("DROP OWNED BY shop_clerk")
        shop.server.drop_role(clerk)


def test_where_the_sites_login_is_refused_the_role_of_restores_goes_on(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    target = restored(shop, shop.settings("", "changed since"))

    assert target.side_settings()["USER"] == f"{shop.name}_restore"
    assert "The site's role cannot log in to what was restored" in caplog.text
    target.swap()
    assert shop.sql("SET ROLE shop; SELECT count(*) FROM item") == [(2,)]
    target.undo()
    target.discard()


def privileges(shop: Shop) -> Any:
    return shop.server.execute(
        "SELECT grantee, privilege_type FROM pg_database, aclexplode(datacl)"
        f" WHERE datname = '{shop.name}' ORDER BY 1, 2"
    )


def test_restores_have_a_role_of_their_own(settings: Any, shop: Shop) -> None:
    source = DatabaseSource(
        aliases=["default"],
        connections={"default": {"USER": "b", "HOST": "h"}},
        restore_connections={"default": {"USER": "r", "OPTIONS": {"sslmode": "require"}}},
    )
    database = source.database("default")
    assert database.settings["USER"] == "b"
    entry = database.restore_settings
    assert (entry["USER"], entry["HOST"], entry["OPTIONS"]["sslmode"]) == ("r", "h", "require")


def test_a_lock_that_cannot_be_had_keeps_no_restore_and_no_prune_from_its_work(
    postgresql_server: PostgreSQLServer, tmp_path: Path
) -> None:
    """As on a hosted server, where the maintenance database is closed; and where it is down."""
    with postgresql_project(tmp_path, postgresql_server) as project:
        project.populate()
        saved = project.backup()["id"]
        postgresql_server.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
        try:
            project.restore(saved)
            project.manage("prune_backups", "--no-input")
        finally:
            postgresql_server.execute("GRANT CONNECT ON DATABASE postgres TO PUBLIC")
        port, project.database["PORT"] = project.database["PORT"], "1"
        project.write()
        project.restore(saved, "--only", "media", f"--to-media={tmp_path / 'media'}")
        project.database["PORT"] = port
        assert project.media_fingerprint(tmp_path / "media") == project.media_fingerprint()


def test_a_lock_is_free_as_soon_as_it_is_let_go(
    postgresql_server: PostgreSQLServer, django_db_blocker: DjangoDbBlocker
) -> None:
    """A command that follows at once must not be told that the one before still runs."""
    lock = AdvisoryLock("default", postgresql_server.settings("postgres"))
    key = secrets.randbits(60)

    with django_db_blocker.unblock():
        for _turn in range(50):
            with lock(key, "mipyme_backup backup 01234567 here") as holder:
                assert holder is None
