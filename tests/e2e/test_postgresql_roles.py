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

from mipyme_backup.errors import RestoreError, SourceError
from mipyme_backup.sources.database import DatabaseSource
from mipyme_backup.sources.postgresql import PostgreSQLSnapshot, PostgreSQLTarget, preflight
from mipyme_backup.testing import BytesReader, read_whole
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
        return self.server.execute(re.sub(r"\bshop", self.name, statements), self.name)

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

    def target(self, facts: Any) -> PostgreSQLTarget:
        return PostgreSQLTarget.prepare(
            alias="default",
            settings_dict=self.restore,
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
    snapshot = shop.snapshot()
    try:
        facts = json.loads(json.dumps(snapshot.facts()))
    finally:
        snapshot.close()
    shop.sql(taken)

    with pytest.raises(RestoreError) as caught:
        shop.target(facts).plan()

    assert named in str(caught.value.hint)


def test_restores_have_a_role_of_their_own(settings: Any, shop: Shop) -> None:
    source = DatabaseSource(
        aliases=["default"],
        connections={"default": {"USER": "b", "HOST": "h"}},
        restore_connections={"default": {"USER": "r", "OPTIONS": {"sslmode": "require"}}},
    )
    assert source.settings("default")["USER"] == "b"
    entry = source.restore_settings("default")
    assert (entry["USER"], entry["HOST"], entry["OPTIONS"]["sslmode"]) == ("r", "h", "require")
