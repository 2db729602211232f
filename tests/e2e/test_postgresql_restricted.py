"""What a plain role cannot restore stands in the plan as SQL that brings it back."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pytest_django import DjangoDbBlocker

from mipyme_backup.sources.base import Target
from mipyme_backup.sources.postgresql import InPlaceTarget, PostgreSQLSnapshot, PostgreSQLTarget
from mipyme_backup.testing import BytesReader, read_whole
from tests.services import PostgreSQLServer

DUMP = "database.default.dump"
STATE = """
    SELECT (SELECT jsonb_object_agg(p.pubname, jsonb_build_array(p.puballtables, (
                SELECT jsonb_agg(n.pnnspid::regnamespace::text) FROM pg_publication_namespace n
                WHERE n.pnpubid = p.oid), (
                SELECT jsonb_agg(r.prrelid::regclass::text) FROM pg_publication_rel r
                WHERE r.prpubid = p.oid))) FROM pg_publication p),
           (SELECT jsonb_agg(jsonb_build_array(defaclrole::regrole, defaclacl::text) ORDER BY 1)
            FROM pg_default_acl),
           (SELECT jsonb_agg(jsonb_build_array(evtname, evtevent, evttags, evtfoid::regproc))
            FROM pg_event_trigger)
"""


@pytest.fixture(autouse=True)
def _real_databases(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@dataclass(kw_only=True)
class Shop:
    server: PostgreSQLServer
    name: str

    @property
    def settings(self) -> dict[str, Any]:
        return self.server.settings(self.name, USER=self.name, PASSWORD="x")

    def state(self) -> Any:
        return self.server.execute(STATE, self.name)

    def back_up(self) -> tuple[dict[str, Any], dict[str, Any]]:
        snapshot = PostgreSQLSnapshot("default", self.settings, bin_dir=self.server.bin_dir)
        try:
            content = read_whole(snapshot.artifact().open())
            return {DUMP: lambda: BytesReader(content)}, dict(snapshot.facts())
        finally:
            snapshot.close()


@pytest.fixture
def shop(postgresql_server: PostgreSQLServer) -> Iterator[Shop]:
    name = f"shop_{secrets.token_hex(4)}"
    server = postgresql_server
    server.create_role(name, "x")
    server.create_database(name, owner=name)
    made = Shop(server=server, name=name)
    server.execute(
        f"SET ROLE {name}; CREATE SCHEMA sales; CREATE TABLE sales.item (id int PRIMARY KEY);"
        "CREATE FUNCTION public.watch() RETURNS event_trigger LANGUAGE plpgsql AS"
        " 'BEGIN END';"
        "CREATE PUBLICATION mine FOR TABLE sales.item;"
        f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; RESET ROLE;"
        "CREATE PUBLICATION everything FOR ALL TABLES;"
        "CREATE PUBLICATION theirs FOR TABLE sales.item;"
        f"CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA sales;"
        f"ALTER PUBLICATION of_schema OWNER TO {server.user};"
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA sales GRANT SELECT ON TABLES TO {name};"
        "CREATE EVENT TRIGGER watched ON ddl_command_end WHEN TAG IN ('CREATE TABLE')"
        " EXECUTE FUNCTION public.watch()",
        name,
    )
    try:
        yield made
    finally:
        for (other,) in server.execute("SELECT datname FROM pg_database"):
            if other.startswith(name):
                server.drop_database(other)
        server.drop_role(name)


@pytest.mark.parametrize("kind", [PostgreSQLTarget, InPlaceTarget])
def test_what_the_plan_says_brings_back_what_was_left_out(
    shop: Shop, kind: type[PostgreSQLTarget] | type[InPlaceTarget]
) -> None:
    before = shop.state()
    artifacts, facts = shop.back_up()
    target: Target = kind.prepare(
        alias="default",
        settings_dict=shop.settings,
        restore_id="r0123",
        facts=facts,
        bin_dir=shop.server.bin_dir,
    )
    marker = f"in {shop.name}, afterwards: "
    told = [line.partition(marker)[2] for line in map(str, target.plan()) if marker in line]
    assert len(told) >= 4

    target.load(artifacts)
    assert target.check(facts) == []
    target.swap()
    assert shop.state() != before
    for statement in told:
        shop.server.execute(statement, shop.name)

    assert shop.state() == before


def test_a_superuser_is_told_nothing_of_it(shop: Shop) -> None:
    _artifacts, facts = shop.back_up()
    target = PostgreSQLTarget.prepare(
        alias="default",
        settings_dict=shop.server.settings(shop.name),
        restore_id="r0123",
        facts=facts,
        bin_dir=shop.server.bin_dir,
    )
    assert not [line for line in target.plan() if "afterwards" in str(line)]
