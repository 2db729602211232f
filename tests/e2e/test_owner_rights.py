"""A restore gives everything to one role: what ran with another role's rights must not gain."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from pytest_django import DjangoDbBlocker

from mipyme_backup.sources.postgresql import InPlaceTarget, PostgreSQLSnapshot, PostgreSQLTarget
from mipyme_backup.testing import BytesReader, read_whole
from tests.services import PostgreSQLServer

PASSWORD = "pw"
SECRET = "SELECT word FROM public.secret"
OF_EVIL = f"""
CREATE FUNCTION public.peek() RETURNS text SECURITY DEFINER LANGUAGE plpgsql AS
    $$BEGIN RETURN (SELECT word FROM public.secret LIMIT 1); END $$;
CREATE PROCEDURE public.poke(made public."a (b", number int) SECURITY DEFINER LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO public.secret VALUES ('poked'); END $$;
CREATE FUNCTION public.plain() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE VIEW public.seen AS {SECRET};
CREATE TABLE public.bait (word text);
CREATE RULE more AS ON INSERT TO public.bait DO ALSO INSERT INTO public.secret VALUES (NEW.word);
CREATE VIEW public.faced AS SELECT 1 AS id;
CREATE RULE instead AS ON INSERT TO public.faced
    DO INSTEAD INSERT INTO public.secret VALUES ('faced');
GRANT ALL ON public.seen, public.bait, public.faced TO PUBLIC;
"""
OF_OWNER = f"""
CREATE TYPE public."a (b" AS ENUM ('x');
CREATE TABLE public.secret (word text);
INSERT INTO public.secret VALUES ('hidden');
CREATE FUNCTION public.allowed() RETURNS text SECURITY DEFINER LANGUAGE plpgsql AS
    $$BEGIN RETURN (SELECT word FROM public.secret LIMIT 1); END $$;
CREATE VIEW public.shown AS {SECRET};
CREATE TABLE public.book (word text);
CREATE RULE noted AS ON INSERT TO public.book DO ALSO INSERT INTO public.secret VALUES (NEW.word);
GRANT ALL ON public.shown, public.book TO PUBLIC;
"""
# A view of the database's owner reads one of another role, which may have been replaced since.
THROUGH = """
CREATE VIEW public.through AS SELECT * FROM public.seen;
GRANT SELECT ON public.through TO PUBLIC;
"""
ATTACKS = {
    "peek": "SELECT public.peek()",
    "poke": "CALL public.poke('x', 1)",
    "seen": "SELECT * FROM public.seen",
    "through": "SELECT * FROM public.through",
    "more": "INSERT INTO public.bait VALUES ('rule')",
    "instead": "INSERT INTO public.faced VALUES (1)",
}
USES = (
    "SELECT public.allowed()",
    "SELECT * FROM public.shown",
    "INSERT INTO public.book VALUES ('n')",
)


@dataclass
class Owned:
    """A database of `owner`, in which `evil` and `member`, a member of `owner`, own things."""

    server: PostgreSQLServer
    name: str

    @property
    def owner(self) -> str:
        return f"{self.name}_owner"

    @property
    def evil(self) -> str:
        return f"{self.name}_evil"

    @property
    def member(self) -> str:
        return f"{self.name}_member"

    def run_as(self, role: str, statements: str, name: str = "") -> None:
        with psycopg.connect(
            host=self.server.host,
            port=self.server.port,
            user=role,
            password=PASSWORD,
            dbname=name or self.name,
            autocommit=True,
        ) as connection:
            connection.execute(statements.encode())

    def gained(self, name: str = "") -> list[str]:
        """Return with which attacks `evil` reads or changes the secret."""
        found = []
        for attack, statement in ATTACKS.items():
            before = self.server.execute(SECRET, name or self.name)
            try:
                self.run_as(self.evil, statement, name)
            except psycopg.Error:
                continue
            if (
                attack in {"peek", "seen", "through"}
                or self.server.execute(SECRET, name or self.name) != before
            ):
                found.append(attack)
        return found

    def settings(self, role: str) -> dict[str, Any]:
        return self.server.settings(self.name, USER=role, PASSWORD=PASSWORD)

    def back_up(self) -> tuple[dict[str, Any], Any]:
        snapshot = PostgreSQLSnapshot(
            "default", self.server.settings(self.name), bin_dir=self.server.bin_dir
        )
        try:
            dump = read_whole(snapshot.artifact().open())
            facts = json.loads(json.dumps(snapshot.facts()))
        finally:
            snapshot.close()
        return {"database.default.dump": lambda: BytesReader(dump)}, facts

    def target(self, facts: Any, kind: Any = PostgreSQLTarget, role: str = "", **more: Any) -> Any:
        settings = self.settings(role or self.owner) if role != "superuser" else None
        return kind.prepare(
            alias="default",
            settings_dict=settings or self.server.settings(self.name),
            restore_id=f"r{secrets.token_hex(4)}",
            facts=facts,
            bin_dir=self.server.bin_dir,
            **more,
        )


@pytest.fixture
def owned(
    postgresql_server: PostgreSQLServer, django_db_blocker: DjangoDbBlocker
) -> Iterator[Owned]:
    made = Owned(postgresql_server, f"owned_{secrets.token_hex(4)}")
    roles = (made.owner, made.evil, made.member)
    for role in roles:
        postgresql_server.create_role(role, PASSWORD, createdb=role == made.owner)
    postgresql_server.create_database(made.name, owner=made.owner)
    try:
        postgresql_server.execute(f"GRANT {made.owner} TO {made.member}")
        made.run_as(made.owner, "GRANT CREATE ON SCHEMA public TO PUBLIC;" + OF_OWNER)
        made.run_as(made.evil, OF_EVIL)
        made.run_as(made.owner, THROUGH)
        made.run_as(
            made.member,
            "CREATE FUNCTION public.joined() RETURNS text SECURITY DEFINER LANGUAGE sql"
            " AS 'SELECT 1::text'",
        )
        with django_db_blocker.unblock():
            yield made
    finally:
        for (name,) in postgresql_server.execute("SELECT datname FROM pg_database"):
            if name.startswith(made.name):
                postgresql_server.drop_database(name)
        for role in reversed(roles):
            if postgresql_server.execute(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
                postgresql_server.drop_role(role)


def restore(target: Any, artifacts: Any, facts: Any) -> list[str]:
    """Restore up to the swap; return the plan."""
    told = [str(line) for line in target.plan()]
    target.load(artifacts)
    assert target.check(facts) == []
    target.swap()
    return told


def definers(owned: Owned) -> list[str]:
    return [
        name
        for (name,) in owned.server.execute(
            "SELECT proname FROM pg_proc WHERE prosecdef ORDER BY 1", owned.name
        )
    ]


def hand_over(owned: Owned) -> None:
    """Do what the plan of a restore in place asks for: it replaces what its role owns."""
    owned.server.execute(
        f"REASSIGN OWNED BY {owned.evil}, {owned.member} TO {owned.owner}", owned.name
    )


@pytest.mark.parametrize("kind", [PostgreSQLTarget, InPlaceTarget])
def test_what_another_role_owned_gains_no_rights_by_a_restore(
    owned: Owned, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert owned.gained() == []
    artifacts, facts = owned.back_up()
    if kind is InPlaceTarget:
        hand_over(owned)

    told = restore(owned.target(facts, kind), artifacts, facts)

    assert owned.gained() == []
    assert definers(owned) == ["allowed", "joined"]
    for use in USES:
        owned.run_as(owned.evil, use)
    for lines in ("\n".join(told), caplog.text):
        for name in ("peek()", "poke(", "faced", "… (+1)"):
            assert name in lines
        assert owned.evil in lines
        for name in ("allowed", "joined", "shown", "book", "plain"):
            assert name not in lines


def test_a_role_of_restores_takes_the_rights_as_the_owner_that_it_acts_for(owned: Owned) -> None:
    """It owns nothing of what it restores itself."""
    owned.server.execute(f"ALTER ROLE {owned.member} CREATEDB")
    artifacts, facts = owned.back_up()

    restore(owned.target(facts, role=owned.member), artifacts, facts)

    assert owned.gained() == []
    assert definers(owned) == ["allowed", "joined"]
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert owned.server.execute(owners, owned.name) == [(owned.owner,)]


def test_what_the_plan_says_gives_the_rights_back(owned: Owned) -> None:
    artifacts, facts = owned.back_up()
    told = restore(owned.target(facts), artifacts, facts)

    statements = [line.partition(": ")[2] for line in told if line.startswith("Only an admin")]
    assert len(statements) == 5
    for statement in statements:
        owned.server.execute(statement, owned.name)

    assert "peek" in definers(owned)
    assert owned.gained() == []
    owned.server.execute(f"GRANT SELECT ON public.secret TO {owned.evil}", owned.name)
    assert {"peek", "seen"} <= set(owned.gained())


def test_a_superuser_that_cannot_keep_the_owners_lends_its_rights_to_none(owned: Owned) -> None:
    """A role of the backup is missing on the server, so everything belongs to the superuser.

    Older backups do not say what the plan names.
    """
    artifacts, facts = owned.back_up()
    del facts["owner_rights"]
    facts = {**facts, "roles": [*facts["roles"], "gone"]}
    copy = f"{owned.name}_copy"

    restore(owned.target(facts, role="superuser", to_database=copy), artifacts, facts)

    owned.server.execute(f"GRANT CONNECT ON DATABASE {copy} TO PUBLIC")
    assert owned.gained(copy) == []
    assert owned.server.execute("SELECT count(*) FROM pg_proc WHERE prosecdef", copy) == [(0,)]


def test_a_superuser_that_keeps_the_owners_changes_nothing(
    owned: Owned, caplog: pytest.LogCaptureFixture
) -> None:
    artifacts, facts = owned.back_up()

    told = restore(owned.target(facts, role="superuser"), artifacts, facts)

    assert definers(owned) == ["allowed", "joined", "peek", "poke"]
    assert owned.gained() == []
    assert "SECURITY DEFINER" not in "\n".join(told) + caplog.text


def test_the_name_of_the_databases_owner_may_be_another_on_a_new_server(owned: Owned) -> None:
    """Roles that are not on the server are no more trusted than those that are."""
    artifacts, facts = owned.back_up()
    owned.server.drop_database(owned.name)
    for role in (owned.member, owned.owner, owned.evil):
        owned.server.drop_role(role)
    owned.server.create_role(owned.member, PASSWORD, createdb=True)
    owned.server.create_role(owned.evil, PASSWORD, createdb=False)

    told = restore(owned.target(facts, role=owned.member), artifacts, facts)

    assert owned.gained() == []
    assert definers(owned) == ["allowed", "joined"]
    assert any("peek()" in line for line in told)


def test_of_many_some_are_named(owned: Owned, caplog: pytest.LogCaptureFixture) -> None:
    owned.run_as(
        owned.evil,
        "".join(f"CREATE VIEW public.view_{n} AS SELECT 1 AS id;" for n in range(20)),
    )
    artifacts, facts = owned.back_up()

    told = restore(owned.target(facts), artifacts, facts)

    for text in ("\n".join(told), caplog.text):
        assert "… (+21)" in text
