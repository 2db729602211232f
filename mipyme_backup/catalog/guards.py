"""What a catalog that is away means: nothing, but where the operator asked for it alone.

Its tables may be absent or older than the code, locked, or the database away; and roles in the
database may have put triggers on them, or operators of their own beside the system's, with which
Django reads something else than it wrote. A run goes on without them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar

from django.core.exceptions import MultipleObjectsReturned, ObjectDoesNotExist
from django.db import Error, connections, transaction
from django.utils.connection import ConnectionDoesNotExist

from mipyme_backup.errors import CatalogError, SourceError
from mipyme_backup.messages import _
from mipyme_backup.sources import sqlite
from mipyme_backup.sources.postgresql.connection import sqlstate
from mipyme_backup.translation import warn

logger = logging.getLogger("mipyme_backup")
P = ParamSpec("P")
R = TypeVar("R")

AWAY = (Error, ConnectionDoesNotExist, SourceError)
UNAVAILABLE = (
    *AWAY,
    # What Django says where a row is not as it was just written.
    AssertionError,
    MultipleObjectsReturned,
    ObjectDoesNotExist,
    TypeError,
    ValueError,
)
LOCK_SECONDS = 10
STATEMENT_SECONDS = 30
"""A statement of ours takes milliseconds: longer than that, another session holds it up."""

TOO_SLOW = frozenset({"55P03", "57014"})
"""PostgreSQL's codes of a lock, and of a statement, that was waited for too long."""


class Guarded:
    """Warns once that the catalog is away, however many of its methods find it so.

    One that was waited for too long is `given_up`: the run does not wait for it again.
    """

    def __init__(self) -> None:
        self._warned = False
        self.given_up = False

    def warn(self, error: Exception) -> None:
        self.given_up = self.given_up or sqlstate(error) in TOO_SLOW
        if not self._warned:
            self._warned = True
            text = _(
                "Going on without the catalog (%(reason)s): once it can be read, list_backups"
                " --sync catches up."
            )
            warn(logger, text, reason=str(error).partition("\n")[0])


def optional(method: Callable[P, None]) -> Callable[P, None]:
    """Make a failing catalog a warning: the manifests are the truth."""

    @functools.wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        catalog = args[0]
        assert isinstance(catalog, Guarded)
        # On a bare host there is no default database yet, only the one beside.
        using = str(kwargs.get("using", "default"))
        if catalog.given_up and using == "default":
            return
        try:
            with _patient(using):
                method(*args, **kwargs)
        except UNAVAILABLE as error:
            catalog.warn(error)

    return guarded


def otherwise(nothing: Callable[[], Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a method return `nothing()` where the catalog cannot be read."""

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(method)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            catalog = args[0]
            assert isinstance(catalog, Guarded)
            if not catalog.given_up:
                try:
                    with _patient("default"):
                        return method(*args, **kwargs)
                except UNAVAILABLE as error:
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
    except AWAY as error:
        raise CatalogError(
            _("The catalog cannot be read: %(reason)s"),
            hint=_(
                "Check the database. If it was lost: manage.py restore --latest. If it is new:"
                " manage.py migrate."
            ),
            reason=str(error).partition("\n")[0],
        ) from error


@contextmanager
def _patient(using: str) -> Iterator[None]:
    """Run the block in a transaction that waits for no lock and no trigger without end.

    Within one of the caller's, that one's own patience holds.
    """
    _check_there(using)
    connection = connections[using]
    bounded = connection.vendor == "postgresql" and not connection.in_atomic_block
    with transaction.atomic(using=using):
        if bounded:
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
                cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'")
        yield


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
