"""Connections of our own to a project's server, and what its client tools are told about them.

Django's own connections are left alone: they may sit in a pool, in a transaction, or behind
settings (timeouts, row security) under which a dump would be short. What the tools get is made
by pure functions from the same settings, so that they reach the same server in the same way.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MethodType
from typing import Any

from django.db import Error, connections, transaction
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.utils import load_backend

from mipyme_backup import process
from mipyme_backup.errors import ConfigurationError, PoolerError, PreflightError
from mipyme_backup.messages import _
from mipyme_backup.sources.postgresql.introspection import SafeIntrospection
from mipyme_backup.sources.postgresql.pooler import refuse_pooler

APPLICATION = "mipyme_backup"

# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS, without the
# secrets (password, sslpassword, oauth_client_secret), the name and what a tool sets itself.
CONNECTION_KEYWORDS = (
    "host",
    "hostaddr",
    "port",
    "user",
    "service",
    "servicefile",
    "passfile",
    "require_auth",
    "channel_binding",
    "connect_timeout",
    "options",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "gssencmode",
    "sslmode",
    "sslnegotiation",
    "sslcert",
    "sslkey",
    "sslkeylogfile",
    "sslcertmode",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "sslsni",
    "requirepeer",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "target_session_attrs",
    "load_balance_hosts",
)
# What libpq reads from the environment where the settings are silent; not PGPASSWORD.
ENVIRONMENT_NAMES = (
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGUSER",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGSYSCONFDIR",
    "PGPASSFILE",
    "PGCHANNELBINDING",
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGOPTIONS",
    "PGSSLMODE",
    "PGSSLNEGOTIATION",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLCERTMODE",
    "PGSSLROOTCERT",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLSNI",
    "PGSSLMINPROTOCOLVERSION",
    "PGSSLMAXPROTOCOLVERSION",
    "PGGSSENCMODE",
    "PGGSSDELEGATION",
    "PGKRBSRVNAME",
    "PGGSSLIB",
    "PGCONNECT_TIMEOUT",
    "PGTARGETSESSIONATTRS",
    "PGLOADBALANCEHOSTS",
)
# Server releases of August 2024 and later have it: a table that was swapped for a view or a
# foreign table is refused instead of read, which would run its owner's functions with our rights
# (CVE-2024-7348).
RESTRICT_RELATIONS = """
    SELECT pg_catalog.set_config(name, 'view, foreign-table', false)
    FROM pg_catalog.pg_settings WHERE name = 'restrict_nonsystem_relation_kind'
"""
SET_SEARCH_PATH = "SELECT pg_catalog.set_config('search_path', %s, false)"
LOCAL_HOSTS = frozenset({"", "localhost", "127.0.0.1", "::1"})


def identity(settings_dict: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what tells one database from another: (host, port, name), or (service, name)."""
    name = str(settings_dict.get("NAME") or "")
    service = (settings_dict.get("OPTIONS") or {}).get("service")
    if service and not settings_dict.get("HOST"):
        return str(service), name
    host = str(settings_dict.get("HOST") or "").lower()
    port = str(settings_dict.get("PORT") or "5432")
    return "localhost" if host in LOCAL_HOSTS else host, port, name


def own_settings(
    settings_dict: Mapping[str, Any], *, application: str = APPLICATION, name: str | None = None
) -> dict[str, Any]:
    """Return a copy of a ``DATABASES`` entry as our own connections need it.

    No pool and no isolation level of the project's, real server-side cursors, no closing by
    age; `name` connects to another database of the same server.
    """
    defaults = {"HOST": "", "PORT": "", "USER": "", "PASSWORD": "", "TIME_ZONE": None}
    options = dict(settings_dict.get("OPTIONS") or {})
    for unwanted in ("pool", "isolation_level", "server_side_binding"):
        options.pop(unwanted, None)
    options["application_name"] = application
    own = {
        **defaults,
        **settings_dict,
        "OPTIONS": options,
        "AUTOCOMMIT": True,
        "ATOMIC_REQUESTS": False,
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": False,
        "DISABLE_SERVER_SIDE_CURSORS": False,
    }
    if name is not None:
        own["NAME"] = name
    return own


def connect(
    alias: str,
    settings_dict: Mapping[str, Any],
    *,
    application: str = APPLICATION,
    name: str | None = None,
    assume_role: bool = True,
    lock_timeout: float = 0,
    register_as: str = NO_DB_ALIAS,
    read_only: bool = False,
) -> BaseDatabaseWrapper:
    """Return a new, open connection in autocommit, without any timeout but `lock_timeout` (s).

    Its search_path is empty, so that a bare name is one of the system's own: roles may have put
    functions, operators and tables of the same names into ``public`` or into the search_path that
    a database's owner has set. With `read_only` its transactions change nothing.

    It may be used by several threads, one at a time. With `register_as` Django's ORM can use
    it in this thread under that name, until the caller takes it out of ``connections``; other
    connections bear the name by which signal handlers know that no project's data is behind
    it (django.contrib.postgres would look its types up in the live database). Raises
    PreflightError when the server cannot be reached, PoolerError when not directly.
    """
    own = own_settings(settings_dict, application=application, name=name)
    if not assume_role:
        own["OPTIONS"].pop("assume_role", None)
    wrapper: BaseDatabaseWrapper = load_backend(own["ENGINE"]).DatabaseWrapper(own, register_as)
    wrapper.inc_thread_sharing()
    where = "/".join(identity(own))
    wrapper.Database = _Unshadowed(  # type: ignore[attr-defined]
        wrapper.Database,  # type: ignore[attr-defined]
        partial(refuse_pooler, alias=alias, where=where),
    )
    wrapper.introspection = SafeIntrospection(wrapper)
    make_cursors_plain(wrapper)
    if register_as != NO_DB_ALIAS:
        connections[register_as] = wrapper
    try:
        wrapper.ensure_connection()
        with wrapper.cursor() as cursor:
            for setting, value in session_settings(server_major(wrapper), lock_timeout).items():
                cursor.execute(f"SET {setting} = {value}")
            if read_only:
                cursor.execute("SET default_transaction_read_only = on")
            cursor.execute(RESTRICT_RELATIONS)
    except (Error, PoolerError) as error:
        wrapper.close()
        if register_as != NO_DB_ALIAS:
            del connections[register_as]
        if isinstance(error, PoolerError):
            raise
        raise PreflightError(
            _("The database %(alias)s (%(where)s) cannot be reached: %(reason)s"),
            hint=_("Check its entry in DATABASES, and that the server runs and lets us in."),
            permanent=False,
            alias=alias,
            where=where,
            reason=reason(error),
        ) from error
    return wrapper


def make_cursors_plain(connection: BaseDatabaseWrapper) -> None:
    """Give `connection` the cursors of Django's own back ends, for as long as it is there.

    Back ends for tenants set a search_path with each cursor.
    """
    plain = BaseDatabaseWrapper._cursor  # type: ignore[attr-defined]
    connection._cursor = MethodType(plain, connection)  # type: ignore[attr-defined]


class _Unshadowed:
    """The driver's module, whose connections look for bare names in the system's schema alone.

    That is the very first that a session is told, before Django or the driver ask it anything,
    and once `refuse` has raised nothing: it is given each new connection.
    `search_path` is what it was before: what the server, the database's owner or the role set.
    """

    def __init__(self, driver: Any, refuse: Callable[[Any], None]) -> None:
        self._driver = driver
        self._refuse = refuse
        self.search_path = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def connect(self, **parameters: Any) -> Any:
        connection = self._driver.connect(**parameters)
        try:
            connection.autocommit = True
            self._refuse(connection)
            with connection.cursor() as cursor:
                # Commands, not queries: they call no function.
                cursor.execute("SHOW search_path")
                self.search_path = str(cursor.fetchone()[0])
                cursor.execute("SET search_path = ''")
        except BaseException:
            connection.close()
            raise
        return connection


def search_like_the_project(wrapper: BaseDatabaseWrapper) -> None:
    """Let bare names find the project's tables too, after the system's own, on a connection of
    `connect`.

    What remains possible: a function or operator of the project's schemas is preferred where its
    types fit better than those of the system's. So a session with this search_path makes no
    queries but plain reads of tables: the ORM's.
    """
    driver: _Unshadowed = wrapper.Database  # type: ignore[attr-defined]
    path = ", ".join(filter(None, ("pg_catalog", driver.search_path.strip())))
    with wrapper.cursor() as cursor:
        cursor.execute(SET_SEARCH_PATH, [path if driver.search_path != '""' else "pg_catalog"])


def project_schemas(wrapper: BaseDatabaseWrapper) -> list[str]:
    """Return the schemas in which the project's bare names are looked for, in their order."""
    driver: _Unshadowed = wrapper.Database  # type: ignore[attr-defined]
    with wrapper.cursor() as cursor:
        cursor.execute(SET_SEARCH_PATH, [driver.search_path])
        cursor.execute("SELECT pg_catalog.current_schemas(false)")
        schemas = [str(name) for name in cursor.fetchone()[0]]
        cursor.execute("SET search_path = ''")
    return schemas


@contextlib.contextmanager
def unshadowed(connection: BaseDatabaseWrapper) -> Iterator[Any]:
    """Yield a cursor that looks for bare names in the system's schema alone.

    That holds for a transaction around the block, so nothing stays set in a session that may
    come from a pooler. The connection must not be in a transaction already.
    """
    with transaction.atomic(using=connection.alias, durable=True), connection.cursor() as cursor:
        cursor.execute("SET LOCAL search_path = ''")
        yield cursor


@contextlib.contextmanager
def connected(
    alias: str, settings_dict: Mapping[str, Any], **options: Any
) -> Iterator[BaseDatabaseWrapper]:
    """As `connect`, closed at the end."""
    wrapper = connect(alias, settings_dict, **options)
    try:
        yield wrapper
    finally:
        wrapper.close()


def session_settings(major: int, lock_timeout: float) -> dict[str, str]:
    """Return what each of our sessions sets, as SQL literals: a long read must not be cut off.

    With `row_security` off a policy that would hide rows is an error instead of a short dump. How
    values are written is fixed, as pg_dump does: a database's owner may have set it so that
    digits are lost.
    """
    settings = {
        "statement_timeout": "0",
        "lock_timeout": str(int(lock_timeout * 1000)),
        "idle_in_transaction_session_timeout": "0",
        "idle_session_timeout": "0",
        "row_security": "off",
        "default_transaction_read_only": "off",
        "default_transaction_isolation": "'read committed'",
        "quote_all_identifiers": "off",
        "DateStyle": "ISO",
        "IntervalStyle": "postgres",
        "extra_float_digits": "3",
    }
    if major >= 17:
        settings["transaction_timeout"] = "0"
    return settings


def without_event_triggers(settings_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings for sessions in which no event trigger fires.

    For a superuser of PostgreSQL 17 or newer: others would not be let in so.
    """
    options = dict(settings_dict.get("OPTIONS") or {})
    given = options.get("options") or os.environ.get("PGOPTIONS") or ""
    options["options"] = f"{given} -c event_triggers=off".strip()
    return {**settings_dict, "OPTIONS": options}


def conninfo(settings_dict: Mapping[str, Any], *, name: str) -> str:
    """Return the connection string for a client tool: everything but secrets."""
    options = settings_dict.get("OPTIONS") or {}
    given = {keyword: options[keyword] for keyword in CONNECTION_KEYWORDS if keyword in options}
    for key, keyword in (("HOST", "host"), ("PORT", "port"), ("USER", "user")):
        if settings_dict.get(key):
            given[keyword] = settings_dict[key]
    if settings_dict.get("PASSWORD"):
        given.pop("passfile", None)  # ours holds the password
    given["dbname"] = name
    return " ".join(f"{keyword}={_conninfo_value(given[keyword])}" for keyword in sorted(given))


def _conninfo_value(value: object) -> str:
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def client_environment(application: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a client tool's environment holds beside the usual; nothing in it is secret."""
    inherited = {name: environ[name] for name in ENVIRONMENT_NAMES if environ.get(name)}
    return {**inherited, "PGAPPNAME": application}


def passfile_line(password: str) -> bytes:
    """Return a line of ``.pgpass`` that gives `password` to any server.

    Format: https://www.postgresql.org/docs/current/libpq-pgpass.html
    """
    if any(character in password for character in "\n\r\0"):
        raise ConfigurationError(
            _("A database password holds a line break, which PostgreSQL's tools cannot be given"),
            hint=_("Change the password of the database role."),
        )
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    return f"*:*:*:*:{escaped}\n".encode()


@contextlib.contextmanager
def client_secrets(
    settings_dict: Mapping[str, Any], environ: Mapping[str, str] = os.environ
) -> Iterator[tuple[dict[str, str], list[int]]]:
    """Yield (environment, descriptors to pass on) that carry the password to a client tool."""
    password = settings_dict.get("PASSWORD") or environ.get("PGPASSWORD")
    if not password:
        yield {}, []
        return
    with process.secret_file(passfile_line(str(password))) as (path, descriptor):
        yield {"PGPASSFILE": str(path)}, [descriptor]


def server_major(wrapper: BaseDatabaseWrapper) -> int:
    """Return the server's major version."""
    wrapper.ensure_connection()
    return int(wrapper.pg_version) // 10000  # type: ignore[attr-defined]


def identifier(name: str) -> str:
    """Return `name` quoted as an SQL identifier."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def literal(value: str) -> str:
    """Return `value` quoted as an SQL string literal, whatever its backslashes."""
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in value else f"'{escaped}'"


def sqlstate(error: BaseException) -> str:
    """Return the five characters of PostgreSQL's error code, or "" where there is none."""
    cause = error.__cause__ or error
    return str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or "")


def reason(error: BaseException) -> str:
    """Return what the server or libpq said, on one line."""
    return " ".join(str(error).split())
