"""A saved database that receives from another one: no copy of it receives, and none is kept."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pytest_django import DjangoDbBlocker

from mipyme_backup.errors import RestoreError
from mipyme_backup.sources.postgresql import PostgreSQLSnapshot, PostgreSQLTarget, preflight
from mipyme_backup.testing import BytesReader, read_whole
from tests.services import PostgreSQLServer

DUMP = "database.default.dump"


@pytest.fixture(autouse=True)
def _real_databases(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@dataclass(kw_only=True)
class Receiver:
    """A database `name` that subscribes to `news` in the database `source` of the same server."""

    server: PostgreSQLServer
    name: str
    source: str
    slot: str
    user: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        return self.server.settings(self.name, **self.user)

    def publish(self, word: str) -> None:
        self.server.execute(f"INSERT INTO news VALUES ('{word}')", self.source)

    def words(self, database: str | None = None) -> list[str]:
        rows = self.server.execute("SELECT word FROM news ORDER BY 1", database or self.name)
        return [word for (word,) in rows]

    def await_words(self, *expected: str) -> None:
        deadline = time.monotonic() + 30
        while self.words() != [*expected]:
            assert time.monotonic() < deadline, self.words()
            time.sleep(0.1)

    def subscriptions(self) -> list[tuple[Any, ...]]:
        return self.server.execute(
            "SELECT d.datname, s.subenabled FROM pg_subscription s"
            " JOIN pg_database d ON d.oid = s.subdbid ORDER BY 1"
        )

    def databases(self) -> list[str]:
        rows = self.server.execute("SELECT datname FROM pg_database ORDER BY 1")
        return [name for (name,) in rows if name.startswith(self.name)]

    def target(self, facts: dict[str, Any], *, drill: bool = False) -> PostgreSQLTarget:
        return PostgreSQLTarget.prepare(
            alias="default",
            settings_dict=self.settings,
            restore_id=f"r{secrets.token_hex(4)}",
            facts=facts,
            bin_dir=self.server.bin_dir,
            drill=drill,
        )

    def back_up(self) -> tuple[dict[str, Any], dict[str, Any]]:
        snapshot = PostgreSQLSnapshot("default", self.settings, bin_dir=self.server.bin_dir)
        try:
            content = read_whole(snapshot.artifact().open())
            return {DUMP: lambda: BytesReader(content)}, dict(snapshot.facts())
        finally:
            snapshot.close()


@contextlib.contextmanager
def receiving(server: PostgreSQLServer, user: dict[str, Any]) -> Iterator[Receiver]:
    mark = secrets.token_hex(4)
    made = Receiver(
        server=server, name=f"rec_{mark}", source=f"src_{mark}", slot=f"slot_{mark}", user=user
    )
    for name in (made.name, made.source):
        server.create_database(name, owner=user.get("USER"))
        server.execute("CREATE TABLE news (word text PRIMARY KEY)", name)
        if user:
            server.execute(f"ALTER TABLE news OWNER TO {user['USER']}", name)
    server.execute("CREATE PUBLICATION news FOR TABLE news", made.source)
    server.execute(
        f"SELECT pg_create_logical_replication_slot('{made.slot}', 'pgoutput')", made.source
    )
    conninfo = (
        f"host={server.host} port={server.port} user={server.user} password={server.password}"
        f" dbname={made.source}"
    )
    server.execute(
        f"CREATE SUBSCRIPTION news CONNECTION '{conninfo}' PUBLICATION news"
        f" WITH (create_slot = false, slot_name = '{made.slot}')",
        made.name,
    )
    try:
        made.publish("first")
        made.await_words("first")
        yield made
    finally:
        for name in made.databases():
            for (one,) in server.execute(
                f"SELECT subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid"
                f" WHERE datname = '{name}'"
            ):
                server.execute(
                    f"ALTER SUBSCRIPTION {one} DISABLE;"
                    f"ALTER SUBSCRIPTION {one} SET (slot_name = NONE); DROP SUBSCRIPTION {one}",
                    name,
                )
            server.drop_database(name)
        deadline = time.monotonic() + 30
        query = f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{made.slot}' AND active"
        while server.execute(query) and time.monotonic() < deadline:
            time.sleep(0.1)
        server.drop_database(made.source)


@pytest.fixture
def receiver(postgresql_server: PostgreSQLServer) -> Iterator[Receiver]:
    with receiving(postgresql_server, {}) as made:
        yield made


def test_a_drill_has_no_subscription_and_leaves_nothing(receiver: Receiver) -> None:
    artifacts, facts = receiver.back_up()
    target = receiver.target(facts, drill=True)

    target.load(artifacts)
    assert receiver.subscriptions() == [(receiver.name, True)]
    target.discard()

    assert receiver.databases() == [receiver.name]


def test_what_is_replaced_stops_receiving_until_it_is_back(receiver: Receiver) -> None:
    artifacts, facts = receiver.back_up()
    target = receiver.target(facts)
    target.load(artifacts)
    assert target.check(facts) == []
    target.swap()

    before = target.state["before"]
    assert receiver.subscriptions() == [(receiver.name, False), (before, False)]
    receiver.publish("later")
    time.sleep(1)
    assert receiver.words(before) == receiver.words() == ["first"]

    target.undo()
    receiver.await_words("first", "later")
    target.discard()
    assert receiver.databases() == [receiver.name]
    assert receiver.subscriptions() == [(receiver.name, True)]


def test_what_was_replaced_can_be_removed_and_the_slot_stays(receiver: Receiver) -> None:
    artifacts, facts = receiver.back_up()
    target = receiver.target(facts)
    (told,) = [str(line) for line in target.plan() if "subscription" in str(line)]
    target.load(artifacts)
    target.swap()

    target.remove_replaced()

    assert receiver.databases() == [receiver.name]
    for statement in told.partition(f"in {receiver.name}: ")[2].split("; "):
        receiver.server.execute(statement, receiver.name)
    receiver.publish("later")
    receiver.await_words("first", "later")


def test_a_restore_that_is_given_up_goes_on_receiving(receiver: Receiver) -> None:
    artifacts, facts = receiver.back_up()
    target = receiver.target(facts)
    target.load(artifacts)
    receiver.server.execute("ALTER SUBSCRIPTION news DISABLE", receiver.name)  # a killed swap

    target.discard()

    receiver.publish("later")
    receiver.await_words("first", "later")
    assert receiver.databases() == [receiver.name]


def test_a_subscription_of_another_role_is_named_with_what_an_administrator_does(
    postgresql_server: PostgreSQLServer,
) -> None:
    role = f"plain_{secrets.token_hex(4)}"
    postgresql_server.create_role(role, "x")
    try:
        with receiving(postgresql_server, {"USER": role, "PASSWORD": "x"}) as receiver:
            warned = preflight("default", receiver.settings, bin_dir=receiver.server.bin_dir)
            assert "The subscriptions of default are not saved" in "\n".join(map(str, warned))
            artifacts, facts = receiver.back_up()
            target = receiver.target(facts)
            target.load(artifacts)
            told = "\n".join(str(line) for line in target.plan())
            statement = (
                'ALTER SUBSCRIPTION "news" DISABLE; ALTER SUBSCRIPTION "news" SET (slot_name ='
                ' NONE); DROP SUBSCRIPTION "news";'
            )
            assert statement in told
            with pytest.raises(RestoreError, match="could not be put in the place"):
                target.swap()
            receiver.server.execute(statement, receiver.name)
            target.swap()
            target.remove_replaced()
            assert receiver.databases() == [receiver.name]
    finally:
        postgresql_server.drop_role(role)
