"""Makes the database beside the live one, fills it from a dump and gives it its properties."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mipyme_backup import process
from mipyme_backup.errors import DamagedError, ProcessError, RestoreError
from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK, Child, Reader
from mipyme_backup.sources.postgresql.archive import (
    Contents,
    NotWholeError,
    WholeDump,
    peek_contents,
)
from mipyme_backup.sources.postgresql.connection import (
    APPLICATION,
    client_environment,
    client_secrets,
    conninfo,
    identifier,
    literal,
)
from mipyme_backup.sources.postgresql.selection import select
from mipyme_backup.sources.postgresql.server import Rights

logger = logging.getLogger("mipyme_backup")

# Parameters whose value is a list of quoted names (GUC_LIST_QUOTE in guc_tables.c): each name
# is a literal of its own in SET.
LISTS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)


NO_OWNER = "--no-owner"


def create_statement(
    name: str, properties: Mapping[str, Any], *, owner: str, tablespace: str | None, template: str
) -> str:
    """Return the ``CREATE DATABASE`` that gives `name` what `properties` say of another one."""
    parts = [f"CREATE DATABASE {identifier(name)} WITH OWNER = {identifier(owner)}"]
    parts.append(f"TEMPLATE = {identifier(template)}")
    if properties.get("encoding"):
        parts.append(f"ENCODING = {literal(properties['encoding'])}")
    if properties.get("locale_provider"):
        parts.append(f"LOCALE_PROVIDER = {identifier(properties['locale_provider'])}")
    for key, word in (
        ("collate", "LC_COLLATE"),
        ("ctype", "LC_CTYPE"),
        ("icu_locale", "ICU_LOCALE"),
        ("icu_rules", "ICU_RULES"),
        ("builtin_locale", "BUILTIN_LOCALE"),
    ):
        if properties.get(key):
            parts.append(f"{word} = {literal(properties[key])}")
    if tablespace:
        parts.append(f"TABLESPACE = {identifier(tablespace)}")
    return " ".join(parts)


def closing_statements(name: str, owner: str, *logins: str) -> list[str]:
    """Return what keeps all but the owner and `logins` out of a database that is not live yet."""
    database = identifier(name)
    return [
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        *(
            f"GRANT CONNECT ON DATABASE {database} TO {identifier(login)}"
            for login in dict.fromkeys(logins)
            if login != owner
        ),
    ]


def property_statements(
    name: str, properties: Mapping[str, Any], rights: Rights
) -> tuple[list[str], list[str]]:
    """Return (what to run, what only an administrator can run) for settings and comment."""
    ours: list[str] = []
    theirs: list[str] = []
    for role, setting in properties.get("settings") or []:
        parameter, _equals, value = setting.partition("=")
        statement = setting_statement(name, role, parameter, value)
        (ours if rights.may_set(role, parameter) else theirs).append(statement)
    if properties.get("comment"):
        ours.append(f"COMMENT ON DATABASE {identifier(name)} IS {literal(properties['comment'])}")
    return ours, theirs


def setting_statement(name: str, role: str, parameter: str, value: str) -> str:
    """Return the SQL of one row of ``pg_db_role_setting``; `role` is "" for all."""
    head = f"ALTER DATABASE {identifier(name)}"
    if role:
        head = f"ALTER ROLE {identifier(role)} IN DATABASE {identifier(name)}"
    # A parameter's name may have a prefix, and each part is quoted by itself.
    quoted = ".".join(identifier(part) for part in parameter.split("."))
    written = literal(value)
    if parameter in LISTS:
        items = re.findall(r'"(?:[^"]|"")*"|[^,\s]+', value)
        plain = [item[1:-1].replace('""', '"') if item[0] == '"' else item for item in items]
        written = ", ".join(literal(item) for item in plain) or "''"
    return f"{head} SET {quoted} TO {written}"


def opening_statements(
    name: str,
    properties: Mapping[str, Any],
    *,
    owner: str,
    rights: Rights,
    logins: Iterable[str] = (),
) -> list[str]:
    """Return what lets others in again as `properties` say: privileges, connection limit.

    `logins` were let in before, beside our own.
    """
    database = identifier(name)
    acl = properties.get("acl")
    statements = [
        f"REVOKE ALL ON DATABASE {database} FROM {identifier(login)}"
        for login in dict.fromkeys((rights.login, *logins))
        if login != owner
    ]
    if acl is None:
        statements.append(f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO PUBLIC")
    for role, privilege, grantable in acl or []:
        if role and role not in rights.roles:
            continue
        grantee = identifier(role) if role else "PUBLIC"
        option = " WITH GRANT OPTION" if grantable else ""
        statements.append(f"GRANT {privilege} ON DATABASE {database} TO {grantee}{option}")
    limit = properties.get("connection_limit", -1)
    statements.append(f"ALTER DATABASE {database} CONNECTION LIMIT {int(limit)}")
    return statements


def restore_arguments(
    program: Path,
    settings_dict: Mapping[str, Any],
    *,
    name: str,
    role: str | None,
    use_list: Path | None,
    flags: Iterable[str],
) -> list[str]:
    """Return pg_restore's argv; it reads the dump from stdin."""
    return [
        str(program),
        "--format=custom",
        "--exit-on-error",
        "--no-password",
        *flags,
        *([f"--use-list={use_list}"] if use_list else []),
        *([f"--role={role}"] if role else []),
        f"--dbname={conninfo(settings_dict, name=name)}",
    ]


def restore_flags(contents: Contents, rights: Rights, dump_roles: Iterable[str]) -> list[str]:
    """Return what pg_restore must not try: owners, privileges or tablespaces that are not here.

    A superuser restores everything as it was, as long as all the dump's roles exist.
    """
    everyone_here = rights.roles.issuperset(dump_roles)
    flags = []
    if not (rights.superuser and everyone_here):
        flags.append(NO_OWNER)
    if not everyone_here:
        flags.append("--no-privileges")
    if not rights.tablespaces.issuperset(e.tablespace for e in contents.entries if e.tablespace):
        flags.append("--no-tablespaces")
    return flags


def load_dump(
    dump: Reader,
    settings_dict: Mapping[str, Any],
    *,
    program: Path,
    name: str,
    role: str | None,
    rights: Rights,
    installed: frozenset[str],
    dump_roles: Sequence[str],
    throwaway: bool = False,
) -> Contents | None:
    """Restore `dump` into the database `name`, and read it to its very end.

    What ties a database to another server is left out of a `throwaway` one. Returns the dump's
    table of contents where its owners were not restored. Raises DamagedError when the dump is not
    whole, RestoreError with pg_restore's own words.
    """
    whole = _OneAtATime(WholeDump(dump))
    try:
        contents, stream = peek_contents(whole)
        flags = restore_flags(contents, rights, dump_roles)
        chosen = select(contents.entries, rights, installed)
        if throwaway:
            chosen = chosen.without_kinds({"SUBSCRIPTION"})
        for entry in chosen.left_out:
            logger.info("Left out of %s: %s %s", name, entry.kind, entry.tag)
        with (
            client_secrets(settings_dict) as (secrets, descriptors),
            process.secret_file(chosen.use_list()) as (use_list, descriptor),
        ):
            child = Child(
                restore_arguments(
                    program,
                    settings_dict,
                    name=name,
                    role=role,
                    use_list=use_list if contents.known else None,
                    flags=flags,
                ),
                stdin=stream,
                env={**client_environment(APPLICATION, os.environ), **secrets},
                pass_fds=[*descriptors, descriptor],
            )
        try:
            while child.read(CHUNK):
                pass
            # It need not have read what follows the last block that it wanted.
            while whole.read(CHUNK):
                pass
        finally:
            child.close()
    except NotWholeError as error:
        raise DamagedError(
            _("The dump for %(name)s is not whole: %(reason)s"), name=name, reason=str(error)
        ) from error
    except ProcessError as error:
        raise RestoreError(
            _("Loading %(name)s failed: %(reason)s"),
            hint=_("What is live was not touched. Mend what the server refused and restore again."),
            name=name,
            reason=str(error),
        ) from error
    return contents if NO_OWNER in flags else None


class _OneAtATime:
    """A reader that the thread which feeds a process and this one may both read to its end."""

    def __init__(self, upstream: Reader) -> None:
        self._upstream = upstream
        self._mutex = threading.Lock()
        self._ended = False

    def read(self, size: int, /) -> bytes:
        with self._mutex:
            data = b"" if self._ended else self._upstream.read(size)
            self._ended = not data
            return data

    def close(self) -> None:
        self._upstream.close()
