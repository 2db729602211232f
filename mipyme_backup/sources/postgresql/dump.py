"""Starts pg_dump on an exported snapshot."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mipyme_backup.process import Child
from mipyme_backup.sources.postgresql.archive import WholeDump
from mipyme_backup.sources.postgresql.connection import (
    client_environment,
    client_secrets,
    conninfo,
    identifier,
)

IDLE_SECONDS = 1800


def dump_arguments(
    program: Path,
    settings_dict: Mapping[str, Any],
    *,
    name: str,
    snapshot: str,
    lock_timeout: float,
    without_rows: Iterable[tuple[str, str]],
) -> list[str]:
    """Return pg_dump's argv; `without_rows` are (schema, table), `lock_timeout` is in seconds."""
    role = (settings_dict.get("OPTIONS") or {}).get("assume_role")
    return [
        str(program),
        "--format=custom",
        "--compress=0",
        "--no-password",
        f"--snapshot={snapshot}",
        f"--lock-wait-timeout={int(lock_timeout * 1000)}",
        *([f"--role={role}"] if role else []),
        *(
            f"--exclude-table-data={identifier(schema)}.{identifier(table)}"
            for schema, table in sorted(without_rows)
        ),
        f"--dbname={conninfo(settings_dict, name=name)}",
    ]


def start_dump(
    arguments: Sequence[str],
    settings_dict: Mapping[str, Any],
    *,
    application: str,
    on_exit: Callable[[int, str], None],
) -> WholeDump:
    """Start pg_dump and return its output; reading to the end proves that it is whole."""
    environment = client_environment(application, os.environ)
    with client_secrets(settings_dict) as (secret_environment, descriptors):
        child = Child(
            arguments,
            env={**environment, **secret_environment},
            pass_fds=descriptors,
            idle_timeout=IDLE_SECONDS,
            on_exit=on_exit,
        )
    return WholeDump(child)
