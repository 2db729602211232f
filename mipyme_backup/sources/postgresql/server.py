"""The server that is restored to: its maintenance connection, and what our role may do there."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

from mipyme_backup.errors import PoolerError, PreflightError, RestoreError
from mipyme_backup.messages import _
from mipyme_backup.sources.postgresql import content
from mipyme_backup.sources.postgresql.connection import connect, identifier, reason, sqlstate
from mipyme_backup.sources.postgresql.privileges import may_not_connect

MAINTENANCE = ("postgres", "template1")
NO_PRIVILEGE = "42501"
NAME_BYTES = 63  # NAMEDATALEN - 1
HASH_DIGITS = 10


@dataclass(frozen=True, kw_only=True)
class Rights:
    """Who we are on the server and what that allows.

    `login` is the role that connects, `role` the one that it may have assumed; `assumable` are
    the roles that we may act as, `settable` the parameters that we may set for a database,
    `trusted` the extensions that a database's owner may create, `available` all of them.
    """

    login: str
    role: str
    superuser: bool
    createdb: bool
    bypassrls: bool = False
    roles: frozenset[str]
    assumable: frozenset[str]
    settable: frozenset[str]
    available: frozenset[str]
    trusted: frozenset[str]
    tablespaces: frozenset[str]

    def may_create_extension(self, name: str) -> bool:
        return name in self.available and (self.superuser or name in self.trusted)

    def may_set(self, role: str, parameter: str) -> bool:
        """Tell whether we may set `parameter` in a database of ours, for `role` or ("") all."""
        if role and role not in self.roles:
            return False
        return self.superuser or (role in {"", self.role} and parameter in self.settable)


def rights(cursor: Any, major: int) -> Rights:
    """Return what the role of this session may do."""
    cursor.execute(
        "SELECT session_user, rolname, rolsuper, rolcreatedb, rolbypassrls"
        " FROM pg_catalog.pg_roles WHERE rolname = current_user"
    )
    login, role, superuser, createdb, bypassrls = cursor.fetchone()
    how = "SET" if major >= 16 else "MEMBER"
    queries = {
        "roles": "SELECT rolname FROM pg_catalog.pg_roles",
        "assumable": f"SELECT rolname FROM pg_catalog.pg_roles WHERE pg_has_role(oid, '{how}')",  # noqa: S608
        "settable": "SELECT name FROM pg_catalog.pg_settings WHERE context IN ('user', 'backend') "
        "OR has_parameter_privilege(name, 'SET')",
        "available": "SELECT name FROM pg_catalog.pg_available_extensions",
        "trusted": "SELECT v.name FROM pg_catalog.pg_available_extension_versions v "
        "JOIN pg_catalog.pg_available_extensions a ON a.name = v.name "
        "AND a.default_version = v.version WHERE v.trusted OR NOT v.superuser",
        "tablespaces": "SELECT spcname FROM pg_catalog.pg_tablespace "
        "WHERE has_tablespace_privilege(oid, 'CREATE')",
    }
    sets = {name: frozenset(content.names(cursor, query)) for name, query in queries.items()}
    return Rights(
        login=login,
        role=role,
        superuser=superuser,
        createdb=createdb or superuser,
        bypassrls=bypassrls or superuser,
        **sets,
    )


@contextlib.contextmanager
def maintenance(
    alias: str,
    settings_dict: Mapping[str, Any],
    *,
    apart_from: Collection[str],
    assume_role: bool = True,
) -> Iterator[BaseDatabaseWrapper]:
    """Yield a connection to a database of the server that is none of those being moved."""
    failures: dict[str, PreflightError] = {}
    connection = None
    for name in MAINTENANCE:
        if name in apart_from:
            continue
        try:
            connection = connect(alias, settings_dict, name=name, assume_role=assume_role)
            break
        except PoolerError:
            raise
        except PreflightError as error:
            failures[name] = error
    if connection is None:
        name, failure = next(iter(failures.items()))
        raise may_not_connect(alias, settings_dict, name) or failure
    try:
        yield connection
    finally:
        with contextlib.suppress(Error):
            connection.close()


@contextlib.contextmanager
def explained(text: str, *, name: str) -> Iterator[None]:
    """Turn what the server refuses into a RestoreError of `text`, with `name` and `reason`."""
    try:
        yield
    except Error as error:
        raise RestoreError(
            text,
            hint=_("See the server's log; what is live was not touched."),
            reason=reason(error),
            name=name,
        ) from error


def databases(cursor: Any) -> frozenset[str]:
    """Return the names of all databases of the server."""
    return frozenset(content.names(cursor, "SELECT datname FROM pg_catalog.pg_database"))


def drop_database(cursor: Any, name: str) -> None:
    """Drop the database `name`, ending the sessions in it; one that is missing is no error."""
    statement = f"DROP DATABASE IF EXISTS {identifier(name)}"
    try:
        cursor.execute(f"{statement} WITH (FORCE)")
    except Error as error:
        if sqlstate(error) != NO_PRIVILEGE:
            raise
        # FORCE would end an autovacuum worker, which a plain role may not; without it the server
        # does so by itself.
        cursor.execute(statement)


def beside(name: str, word: str, restore_id: str) -> str:
    """Return ``<name>__<word>_<restore_id>``, a valid identifier.

    A `name` that must be cut carries a hash of the whole one: two databases whose names begin
    alike must not share what is made beside them.
    """
    suffix = f"__{word}_{restore_id}"
    if len((name + suffix).encode()) <= NAME_BYTES:
        return name + suffix
    suffix = f"_{hashlib.sha256(name.encode()).hexdigest()[:HASH_DIGITS]}{suffix}"
    room = NAME_BYTES - len(suffix.encode())
    return name.encode()[:room].decode(errors="ignore") + suffix
