"""What a catalog that is away means: nothing, but where somebody asked for it alone.

Its tables may be absent or older than the code, or the database away; a run goes on without them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar

from django.db import Error, connections, transaction
from django.utils.connection import ConnectionDoesNotExist

from mipyme_backup.errors import CatalogError, SourceError
from mipyme_backup.messages import _
from mipyme_backup.sources import sqlite
from mipyme_backup.translation import warn

logger = logging.getLogger("mipyme_backup")
P = ParamSpec("P")
R = TypeVar("R")

UNAVAILABLE = (Error, ConnectionDoesNotExist, SourceError)


class Guarded:
    """Warns once that the catalog is away, however many of its methods find it so."""

    def __init__(self) -> None:
        self._warned = False

    def warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            text = _(
                "Going on without the catalog (%(reason)s): after migrate, list_backups --sync"
                " catches up."
            )
            warn(logger, text, reason=str(error).partition("\n")[0])


def optional(method: Callable[P, None]) -> Callable[P, None]:
    """Make a failing catalog a warning: the manifests are the truth."""

    @functools.wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            # On a bare host there is no default database yet, only the one beside.
            using = str(kwargs.get("using", "default"))
            _check_there(using)
            with transaction.atomic(using=using):
                method(*args, **kwargs)
        except UNAVAILABLE as error:
            catalog = args[0]
            assert isinstance(catalog, Guarded)
            catalog.warn(error)

    return guarded


def otherwise(nothing: Callable[[], Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a method return `nothing()` where the catalog cannot be read."""

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(method)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                _check_there("default")
                return method(*args, **kwargs)
            except UNAVAILABLE as error:
                catalog = args[0]
                assert isinstance(catalog, Guarded)
                catalog.warn(error)
                unknown: R = nothing()
                return unknown

        return guarded

    return decorate


@contextmanager
def needed() -> Iterator[None]:
    """Raise CatalogError where the catalog, which the block uses, is away or older than the code.

    Within a transaction, that goes on as if nothing had been asked.
    """
    try:
        _check_there("default")
        inside = connections["default"].in_atomic_block
        with transaction.atomic() if inside else nullcontext():
            yield
    except UNAVAILABLE as error:
        raise CatalogError(
            _("The catalog cannot be read: %(reason)s"),
            hint=_("Look at the database, and run manage.py migrate."),
            reason=str(error).partition("\n")[0],
        ) from error


def _check_there(using: str) -> None:
    """Have a connection that is alive, where one is open.

    Raises SourceError for an SQLite file that is missing: to connect would make an empty one.
    """
    connection = connections[using]
    # A run may not have asked for an hour: a server or a firewall may have ended the session.
    idle = connection.connection is not None and not connection.in_atomic_block
    if idle and not connection.is_usable():
        connection.close()
    if connection.vendor == "sqlite":
        sqlite.preflight(using, connection.settings_dict)
