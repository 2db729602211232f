"""Restores to real servers: beside, checked, swapped in, while others read, write and kill."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pytest_django import DjangoDbBlocker

from mipyme_backup.errors import DamagedError, RestoreError
from mipyme_backup.process import Reader
from mipyme_backup.sources.postgresql import PostgreSQLSnapshot, PostgreSQLTarget
from tests.services import PostgreSQLServer

ODD_NAME = 'o\'dd "näme" -o $x=1 ' + "é" * 12
SCHEMA = (
    "CREATE TABLE account (id serial PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0));"
    "CREATE TABLE transfer (id serial PRIMARY KEY, account_id int NOT NULL REFERENCES account,"
    " amount int NOT NULL);"
    "INSERT INTO account (balance) VALUES (1000000), (0)"
)
SWAP = """
import json, sys
from django.conf import settings
settings.configure(USE_TZ=True)
import django
django.setup()
from pathlib import Path
from mipyme_backup.sources.postgresql import PostgreSQLTarget
state, settings_dict, bin_dir = json.load(sys.stdin)
target = PostgreSQLTarget.from_state(state, settings_dict, Path(bin_dir))
print("ready", flush=True)
print(target.swap(), flush=True)
"""


@pytest.fixture(autouse=True)
def _real_databases(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@dataclass
class Shop:
    """A database of a plain owner, with what a test does to it again and again."""

    server: PostgreSQLServer
    name: str
    role: str
    password: str
    dump: bytes = b""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings_dict(self) -> dict[str, Any]:
        return self.server.settings(self.name, USER=self.role, PASSWORD=self.password)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run as the owner."""
        with self.connect() as connection:
            cursor = connection.execute(statement.encode())
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            host=self.server.host,
            port=self.server.port,
            user=self.role,
            password=self.password,
            dbname=self.name,
            autocommit=True,
        )

    def back_up(self, settings_dict: dict[str, Any] | None = None) -> None:
        snapshot = PostgreSQLSnapshot(
            "default", settings_dict or self.settings_dict, bin_dir=self.server.bin_dir
        )
        try:
            reader = snapshot.artifact().open()
            content = bytearray()
            while data := reader.read(65536):
                content += data
            reader.close()
            self.dump, self.facts = bytes(content), snapshot.facts()
        finally:
            snapshot.close()

    def target(
        self,
        *,
        to_database: str | None = None,
        settings_dict: dict[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> PostgreSQLTarget:
        return PostgreSQLTarget.prepare(
            alias="default",
            settings_dict=settings_dict or self.settings_dict,
            restore_id=f"r{secrets.token_hex(4)}",
            facts=json.loads(json.dumps(facts or self.facts)),
            to_database=to_database,
            bin_dir=self.server.bin_dir,
        )

    def artifacts(self) -> dict[str, Callable[[], Reader]]:
        return {"database.default.dump": lambda: Bytes(self.dump)}

    def loaded(self) -> PostgreSQLTarget:
        """A target that is loaded and checked."""
        target = self.target()
        target.plan()
        target.load(self.artifacts())
        assert target.check(self.facts) == []
        return target


class Bytes:
    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)

    def read(self, size: int, /) -> bytes:
        data, self._content = bytes(self._content[:size]), self._content[size:]
        return data

    def close(self) -> None:
        pass


@pytest.fixture
def shop(postgresql_server: PostgreSQLServer) -> Iterator[Shop]:
    yield from _shop(postgresql_server, f"shop_{secrets.token_hex(4)}")


@pytest.fixture
def odd_shop(postgresql_server: PostgreSQLServer) -> Iterator[Shop]:
    yield from _shop(postgresql_server, f"{ODD_NAME}{secrets.token_hex(3)}")


def _shop(server: PostgreSQLServer, name: str) -> Iterator[Shop]:
    shop = Shop(server=server, name=name, role=name, password=secrets.token_urlsafe(8))
    server.create_role(name, shop.password)
    server.create_database(name, owner=name)
    try:
        shop.sql(SCHEMA)
        yield shop
    finally:
        for database in databases(server):
            # Everything that a restore made starts with the (perhaps cut) name.
            if database.startswith(name[:20]):
                server.drop_database(database)
        server.drop_role(name)


def databases(server: PostgreSQLServer) -> list[str]:
    return [row[0] for row in server.execute("SELECT datname FROM pg_database ORDER BY 1")]


def texts(messages: list[Any]) -> str:
    return "\n".join(str(message) for message in messages)


def test_a_plain_owner_restores_undoes_and_cleans_up(odd_shop: Shop) -> None:
    shop = odd_shop
    shop.sql("INSERT INTO transfer (account_id, amount) SELECT 1, i FROM generate_series(1, 50) i")
    shop.back_up()
    shop.sql("DROP TABLE transfer; CREATE TABLE newer AS SELECT 1 AS id")

    target = shop.loaded()
    assert shop.sql("SELECT count(*) FROM newer") == [(1,)]
    began = time.monotonic()
    downtime = target.swap()

    assert 0 < downtime <= time.monotonic() - began
    assert shop.sql("SELECT count(*), sum(amount) FROM transfer") == [(50, 1275)]
    assert shop.sql("SELECT to_regclass('newer')") == [(None,)]
    shop.sql("INSERT INTO transfer (account_id, amount) VALUES (2, 1)")
    assert target.swap() == 0.0

    target.undo()
    target.undo()
    assert shop.sql("SELECT count(*) FROM newer") == [(1,)]
    target.discard()
    target.discard()
    target.remove_replaced()
    left = [name for name in databases(shop.server) if name.startswith(shop.name[:20])]
    assert left == [shop.name]


def test_the_replaced_database_goes_when_it_is_told_to(shop: Shop) -> None:
    shop.back_up()
    target = shop.loaded()
    target.swap()

    target.remove_replaced()
    target.remove_replaced()

    left = [name for name in databases(shop.server) if name.startswith(shop.name)]
    assert left == [shop.name]
    with pytest.raises(RestoreError, match="is not there"):
        target.undo()


def test_a_restored_database_has_the_properties_of_the_live_one(shop: Shop) -> None:
    shop.back_up()
    reader = f"{shop.name}_reader"
    shop.server.create_role(reader, "x", createdb=False)
    try:
        shop.sql(
            f"ALTER DATABASE {shop.name} SET search_path = \"$user\", public, 'o''dd \"one';"
            f"ALTER DATABASE {shop.name} SET work_mem = '5MB';"
            f"ALTER ROLE {shop.role} IN DATABASE {shop.name} SET statement_timeout = '9s';"
            f"COMMENT ON DATABASE {shop.name} IS 'it''s the \\shop';"
            f"REVOKE ALL ON DATABASE {shop.name} FROM PUBLIC;"
            f"GRANT CONNECT ON DATABASE {shop.name} TO {reader} WITH GRANT OPTION;"
            f"ALTER DATABASE {shop.name} CONNECTION LIMIT 17"
        )
        properties = (
            "SELECT datcollate, datctype, pg_encoding_to_char(encoding), datlocprovider,"
            " datconnlimit, datacl::text, pg_get_userbyid(datdba),"
            " shobj_description(oid, 'pg_database'),"
            " (SELECT array_agg(setconfig::text || setrole ORDER BY 1) FROM pg_db_role_setting"
            f"  WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = '{shop.name}'"
        )
        before = shop.server.execute(properties)

        shop.loaded().swap()

        after = shop.server.execute(properties)
        assert sorted(after[0][5][1:-1].split(",")) == sorted(before[0][5][1:-1].split(","))
        assert [*after[0][:5], *after[0][6:]] == [*before[0][:5], *before[0][6:]]
    finally:
        for name in databases(shop.server):
            if name.startswith(shop.name):
                shop.server.execute(f"DROP OWNED BY {reader}", name)
        shop.server.drop_role(reader)


def test_on_a_bare_host_properties_come_from_the_manifest(shop: Shop) -> None:
    shop.sql(
        f"ALTER DATABASE {shop.name} SET work_mem = '5MB'; COMMENT ON DATABASE {shop.name} IS 'it'"
    )
    shop.back_up()
    shop.server.drop_database(shop.name)

    target = shop.target()
    assert not target.has_live()
    assert "does not exist now" in texts(target.plan())
    target.load(shop.artifacts())
    assert target.check(shop.facts) == []
    assert target.swap() == 0.0

    assert shop.sql("SHOW work_mem") == [("5MB",)]
    assert shop.sql("SELECT count(*) FROM account") == [(2,)]
    assert target.swap() == 0.0
    target.undo()
    assert shop.name not in databases(shop.server)


def test_nobody_wanders_into_the_side_database(shop: Shop) -> None:
    shop.back_up()
    target = shop.loaded()
    side = target.side_settings()
    visitor = f"{shop.name}_visitor"
    shop.server.create_role(visitor, "pw", createdb=False)
    try:
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(
                host=side["HOST"],
                port=side["PORT"],
                user=visitor,
                password="pw",
                dbname=side["NAME"],
            )
    finally:
        shop.server.drop_role(visitor)


def test_a_copy_of_another_name_replaces_nothing(shop: Shop) -> None:
    shop.back_up()
    target = shop.target(to_database=f"{shop.name}_copy")
    target.plan()
    target.load(shop.artifacts())
    target.swap()

    assert shop.server.execute("SELECT count(*) FROM account", f"{shop.name}_copy") == [(2,)]
    assert shop.sql("SELECT count(*) FROM account") == [(2,)]
    with pytest.raises(RestoreError, match="exists already"):
        shop.target(to_database=f"{shop.name}_copy")


def test_check_tells_every_difference(shop: Shop) -> None:
    shop.back_up()
    target = shop.loaded()
    shop.server.execute(
        "DELETE FROM account WHERE id = 2; DROP TABLE transfer;"
        "INSERT INTO account VALUES (9, 1); DELETE FROM account WHERE id = 1;"
        "ALTER TABLE account ADD CONSTRAINT later CHECK (id > 0) NOT VALID",
        target.state["side"],
    )
    differences = texts(target.check(shop.facts))
    assert "public.account has 1 rows, the backup says 2" in differences
    assert "public.transfer has - rows" in differences
    assert "public.account.later is not valid" in differences
    assert "public.account_id_seq is behind" in differences
    assert "There are 1 sequences, the backup says 2" in differences


def test_a_cut_dump_is_refused_and_what_is_live_stays(shop: Shop) -> None:
    shop.sql("INSERT INTO transfer (account_id, amount) SELECT 1, 1 FROM generate_series(1, 20000)")
    shop.back_up()
    whole = shop.dump
    for length in (100, len(whole) // 2, len(whole) - 1):
        shop.dump = whole[:length]
        target = shop.target()
        with pytest.raises(DamagedError, match="not whole"):
            target.load(shop.artifacts())
        target.discard()
    assert shop.sql("SELECT count(*) FROM transfer") == [(20000,)]


def test_an_error_of_the_source_reaches_the_caller(shop: Shop) -> None:
    shop.back_up()

    class Failing(Bytes):
        def read(self, size: int, /) -> bytes:
            if len(self._content) < len(shop.dump) - 2000:
                raise DamagedError("the stored hash differs")
            return super().read(500)

    with pytest.raises(DamagedError, match="stored hash differs"):
        shop.target().load({"database.default.dump": lambda: Failing(shop.dump)})


def test_what_the_server_refuses_is_told_in_its_words(shop: Shop) -> None:
    shop.sql("CREATE FUNCTION positive(int) RETURNS bool LANGUAGE sql AS 'SELECT $1 > 0'")
    shop.back_up()
    # A check that rows break only on the way in: the function is volatile in the worst sense.
    shop.sql("ALTER TABLE account ADD CONSTRAINT odd CHECK (positive(balance) OR id = 2)")
    shop.sql(
        "CREATE OR REPLACE FUNCTION positive(int) RETURNS bool LANGUAGE sql AS 'SELECT $1 < 0'"
    )
    shop.back_up()
    with pytest.raises(RestoreError, match=r"pg_restore failed .*odd"):
        shop.target().load(shop.artifacts())


def test_writers_lose_nothing_they_were_promised_but_a_moment(
    shop: Shop, tell: Callable[[str], None]
) -> None:
    shop.back_up()
    began = time.monotonic()
    target = shop.loaded()
    beside = time.monotonic() - began
    stop = threading.Event()
    broken: list[Any] = []
    gaps: list[float] = []

    def transfer() -> None:
        last = time.monotonic()
        while not stop.is_set():
            with contextlib.suppress(psycopg.OperationalError), shop.connect() as connection:
                while not stop.is_set():
                    with connection.transaction():
                        connection.execute(b"UPDATE account SET balance = balance - 1 WHERE id = 1")
                        connection.execute(b"UPDATE account SET balance = balance + 1 WHERE id = 2")
                        connection.execute(
                            b"INSERT INTO transfer (account_id, amount) VALUES (2, 1)"
                        )
                    gaps.append(time.monotonic() - last)
                    last = time.monotonic()
                    row = connection.execute(
                        b"SELECT sum(balance), max(balance) FILTER (WHERE id = 2) - "
                        b"(SELECT count(*) FROM transfer) FROM account"
                    ).fetchone()
                    if row is None or row[0] != 1000000:
                        broken.append(row)

    writers = [threading.Thread(target=transfer) for _index in range(4)]
    for writer in writers:
        writer.start()
    time.sleep(0.5)
    downtime = target.swap()
    time.sleep(0.5)
    stop.set()
    for writer in writers:
        writer.join()

    tell(f"downtime {downtime:.3f} s, longest gap of a writer {max(gaps):.3f} s")
    assert 0 < downtime < beside  # even of a database with next to nothing in it
    assert broken == []
    invariant = (
        "SELECT (SELECT balance FROM account WHERE id = 2) = (SELECT count(*) FROM transfer),"
        " (SELECT count(*) FROM transfer) > 0"
    )
    assert shop.sql(invariant) == [(True, True)]
    assert shop.server.execute(invariant, target.state["before"]) == [(True, True)]


@pytest.mark.parametrize("attempt", range(6))
def test_a_swap_that_is_killed_is_all_or_nothing_and_can_be_finished(
    shop: Shop, attempt: int
) -> None:
    shop.back_up()
    target = shop.loaded()
    before = set(databases(shop.server))
    with shop.connect() as session:  # ended by the swap
        session.execute(b"SELECT 1")
        swapping = subprocess.Popen(
            [sys.executable, "-c", SWAP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert swapping.stdin is not None and swapping.stdout is not None
        swapping.stdin.write(
            json.dumps(
                [target.state, shop.settings_dict, str(shop.server.bin_dir)], default=str
            ).encode()
        )
        swapping.stdin.close()
        assert swapping.stdout.readline() == b"ready\n"
        time.sleep(0.04 * attempt)
        swapping.send_signal(signal.SIGKILL)
        swapping.wait()
        swapping.stdout.close()
    _wait_until_alone(shop.server)

    swapped = (before - {target.state["side"]}) | {target.state["before"]}
    assert set(databases(shop.server)) in (before, swapped)
    PostgreSQLTarget.from_state(
        json.loads(json.dumps(target.state)), shop.settings_dict, shop.server.bin_dir
    ).swap()
    assert set(databases(shop.server)) == swapped
    assert shop.sql("SELECT count(*) FROM account") == [(2,)]


def _wait_until_alone(server: PostgreSQLServer) -> None:
    """Wait for the sessions of a killed process to notice."""
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^mipyme_backup'"
    deadline = time.monotonic() + 60
    while server.execute(sessions) != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_load_that_was_cut_off_can_be_done_again(shop: Shop) -> None:
    shop.back_up()
    target = shop.loaded()

    again = PostgreSQLTarget.from_state(
        json.loads(json.dumps(target.state)), shop.settings_dict, shop.server.bin_dir
    )
    again.load(shop.artifacts())

    assert again.check(shop.facts) == []


def test_sessions_that_we_may_not_end_stop_the_swap_and_are_named(shop: Shop) -> None:
    shop.back_up()
    target = shop.loaded()
    with shop.server.connect(shop.name) as administrator:
        administrator.execute(b"SET application_name = 'pgAdmin'")
        assert "postgres (pgAdmin)" in texts(target.plan())
        with pytest.raises(RestoreError, match="could not be put in the place") as caught:
            target.swap()
        assert "postgres (pgAdmin)" in str(caught.value.hint)
        assert administrator.execute(b"SELECT count(*) FROM account").fetchone() == (2,)
    assert target.swap() < 0.5


def test_prepared_transactions_are_refused_by_name(shop: Shop) -> None:
    shop.back_up()
    gid = f"{shop.name}_prepared"
    shop.sql(f"BEGIN; INSERT INTO account (balance) VALUES (1); PREPARE TRANSACTION '{gid}'")
    try:
        with pytest.raises(RestoreError, match=gid):
            shop.target().plan()
    finally:
        shop.sql(f"ROLLBACK PREPARED '{gid}'")


def test_logical_slots_that_stay_behind_are_named(shop: Shop) -> None:
    shop.back_up()
    slot = f"{shop.name}_slot"
    shop.server.execute(
        f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')", shop.name
    )
    try:
        assert slot in texts(shop.target().plan())
    finally:
        shop.server.execute(f"SELECT pg_drop_replication_slot('{slot}')")


def test_a_role_that_may_not_create_databases_is_told_so(shop: Shop) -> None:
    shop.back_up()
    shop.server.create_role(shop.role, shop.password, createdb=False)
    with pytest.raises(RestoreError, match="may not create databases") as caught:
        shop.target().plan()
    assert f'ALTER ROLE "{shop.role}" CREATEDB' in str(caught.value.hint)


def test_a_dump_of_a_newer_server_is_refused_with_both_versions(shop: Shop) -> None:
    shop.back_up()
    newer = {**shop.facts, "major": 99}
    with pytest.raises(RestoreError, match=f"PostgreSQL 99.*PostgreSQL {shop.server.major}"):
        shop.target(facts=newer).plan()


def test_an_extension_that_the_server_lacks_is_refused(shop: Shop) -> None:
    shop.back_up()
    facts = {**shop.facts, "extensions": {"postgis": "3.4"}, "extensions_used": ["postgis"]}
    with pytest.raises(RestoreError, match="needs the extension postgis, which the server lacks"):
        shop.target(facts=facts).plan()


@pytest.fixture
def vector(postgresql_server: PostgreSQLServer) -> str:
    """An extension that only a superuser may create."""
    query = "SELECT trusted FROM pg_available_extension_versions WHERE name = 'vector'"
    if (False,) not in postgresql_server.execute(query):
        pytest.skip("this server has no extension `vector`")
    return "vector"


def test_an_extension_that_is_not_trusted_can_come_from_template1(shop: Shop, vector: str) -> None:
    shop.server.execute(f"CREATE EXTENSION {vector}", shop.name)
    shop.sql(
        "CREATE TABLE thing (id int PRIMARY KEY, place vector(3));"
        "INSERT INTO thing VALUES (1, '[1,2,3]');"
        "CREATE INDEX ON thing USING hnsw (place vector_l2_ops)"
    )
    shop.back_up()
    assert shop.facts["extensions_used"] == [vector]
    with pytest.raises(RestoreError, match="may not create") as caught:
        shop.target().plan()
    assert f'template1: CREATE EXTENSION "{vector}"' in str(caught.value.hint)

    shop.server.execute(f"CREATE EXTENSION {vector}", "template1")
    try:
        target = shop.target()
        assert "comes from template1" in texts(target.plan())
        target.load(shop.artifacts())
    finally:
        shop.server.execute(f"DROP EXTENSION {vector}", "template1")
    assert target.check(shop.facts) == []
    target.swap()
    assert shop.sql("SELECT place <-> '[1,2,4]' FROM thing") == [(1.0,)]


def test_an_extension_that_nothing_uses_is_left_out(shop: Shop, vector: str) -> None:
    shop.server.execute(f"CREATE EXTENSION {vector}", shop.name)
    shop.back_up()
    assert shop.facts["extensions_used"] == []

    target = shop.target()
    assert "is left out: nothing in the backup is built on it" in texts(target.plan())
    target.load(shop.artifacts())
    assert target.check(shop.facts) == []


def test_a_superuser_restores_extensions_owners_and_event_triggers(shop: Shop, vector: str) -> None:
    shop.server.execute(
        f"CREATE EXTENSION {vector}; CREATE TABLE thing (place vector(3));"
        "CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        "CREATE EVENT TRIGGER seen ON sql_drop EXECUTE FUNCTION seen()",
        shop.name,
    )
    shop.back_up(shop.server.settings(shop.name))
    target = shop.target(settings_dict=shop.server.settings(shop.name))
    assert "left out" not in texts(target.plan())
    target.load(shop.artifacts())
    assert target.check(shop.facts) == []
    target.swap()
    owners = "SELECT tablename, tableowner FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    assert shop.sql(owners) == [
        ("account", shop.role),
        ("thing", shop.server.user),
        ("transfer", shop.role),
    ]
    assert shop.sql("SELECT evtname FROM pg_event_trigger") == [("seen",)]


def test_what_only_a_superuser_can_make_is_left_out_for_a_plain_owner(shop: Shop) -> None:
    shop.server.execute(
        "CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        "CREATE EVENT TRIGGER seen ON sql_drop EXECUTE FUNCTION seen();"
        "COMMENT ON EVENT TRIGGER seen IS 'what goes';"
        "CREATE PUBLICATION everything FOR ALL TABLES;"
        "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(float8) FROM PUBLIC;"
        f'GRANT EXECUTE ON FUNCTION pg_catalog.pg_sleep(float8) TO "{shop.role}"',
        shop.name,
    )
    shop.back_up(shop.server.settings(shop.name))

    target = shop.target()
    assert "The event trigger seen is left out" in texts(target.plan())
    target.load(shop.artifacts())

    assert target.check(shop.facts) == []
    target.swap()
    assert shop.sql("SELECT count(*) FROM pg_event_trigger") == [(0,)]


def test_roles_that_are_missing_are_named_and_everything_is_ours(shop: Shop) -> None:
    reader = f"{shop.name}_reader"
    shop.server.create_role(reader, "x", createdb=False)
    shop.sql(f"GRANT SELECT ON account TO {reader}")
    shop.back_up()
    shop.sql(f"REVOKE SELECT ON account FROM {reader}")
    shop.server.drop_role(reader)

    target = shop.target()
    assert f'CREATE ROLE "{reader}";' in texts(target.plan())
    target.load(shop.artifacts())
    assert target.check(shop.facts) == []
    target.swap()
    assert shop.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == [
        (shop.role,)
    ]


def test_a_role_restores_as_the_group_that_owns_everything(shop: Shop) -> None:
    member = f"{shop.name}_member"
    shop.server.create_role(member, "pw")
    shop.server.execute(f"GRANT {shop.role} TO {member}")
    shop.back_up()
    mine = shop.server.settings(shop.name, USER=member, PASSWORD="pw")
    target = shop.target(settings_dict=mine)
    try:
        target.plan()
        target.load(shop.artifacts())
        assert target.check(shop.facts) == []
        target.swap()
        assert shop.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname='public'") == [
            (shop.role,)
        ]
    finally:
        target.discard()
        shop.server.execute(f"REASSIGN OWNED BY {member} TO {shop.role}", shop.name)
        shop.server.drop_role(member)


def test_a_role_that_django_assumes_backs_up_and_restores(shop: Shop) -> None:
    login = f"{shop.name}_login"
    shop.server.create_role(login, "pw", createdb=False)
    shop.server.execute(f"GRANT {shop.role} TO {login}; ALTER ROLE {login} NOINHERIT")
    owner, password = shop.role, shop.password
    assuming = shop.server.settings(
        shop.name, USER=login, PASSWORD="pw", OPTIONS={"assume_role": owner}
    )
    try:
        shop.role, shop.password = login, "pw"
        shop.back_up(assuming)
        target = shop.target(settings_dict=assuming)
        target.plan()
        target.load(shop.artifacts())
        assert target.check(shop.facts) == []
        with shop.connect() as session:
            session.execute(f"SET ROLE {owner}".encode())
            assert target.swap() < 0.5
        shop.role, shop.password = owner, password
        assert shop.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname='public'") == [
            (owner,)
        ]
    finally:
        shop.role, shop.password = owner, password
        shop.server.drop_role(login)


def test_a_service_file_is_followed(shop: Shop, workdir: Path) -> None:
    service_file = workdir / "services"
    service_file.write_text(
        f"[shop]\nhost={shop.server.host}\nport={shop.server.port}\nuser={shop.role}\n"
        f"password={shop.password}\ndbname={shop.name}\n"
    )
    entry = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "",
        "OPTIONS": {"service": "shop"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGSERVICEFILE", str(service_file))
        shop.back_up(entry)
        target = shop.target(settings_dict=entry)
        target.plan()
        target.load(shop.artifacts())
        assert target.check(shop.facts) == []
        assert target.swap() < 0.5
    assert shop.sql("SELECT count(*) FROM account") == [(2,)]


def test_settings_that_only_an_administrator_may_make_are_in_the_plan(shop: Shop) -> None:
    shop.server.execute(f"ALTER DATABASE {shop.name} SET log_statement = 'all'")
    shop.back_up()
    target = shop.target()
    assert f'ALTER DATABASE "{shop.name}" SET "log_statement" TO \'all\'' in texts(target.plan())
    target.load(shop.artifacts())
    assert target.check(shop.facts) == []


def test_no_process_shows_the_password_while_loading(shop: Shop) -> None:
    shop.sql("INSERT INTO transfer (account_id, amount) SELECT 1, 1 FROM generate_series(1, 50000)")
    shop.back_up()
    shown: list[bytes] = []

    class Looking(Bytes):
        def read(self, size: int, /) -> bytes:
            for thread in Path("/proc/self/task").iterdir():
                for pid in (thread / "children").read_text().split():
                    for what in ("cmdline", "environ"):
                        with contextlib.suppress(OSError):
                            shown.append((Path("/proc") / pid / what).read_bytes())
            return super().read(size)

    shop.target().load({"database.default.dump": lambda: Looking(shop.dump)})

    assert any(b"pg_restore" in text for text in shown)
    assert not any(shop.password.encode() in text for text in shown)
    assert shop.password.encode() not in json.dumps(shop.target().state).encode()
    assert os.environ.get("PGPASSWORD") is None


def test_session_that_may_not_be_ended_is_named_and_waited_for(shop: Shop) -> None:
    """The server's own worker, which vacuums what was just loaded, is such a one as well."""
    shop.back_up()
    target = shop.loaded()
    with shop.server.connect(target.state["side"]):
        with pytest.raises(RestoreError, match="being accessed by other users"):
            target.discard()

    target.discard()

    assert target.state["side"] not in databases(shop.server)
