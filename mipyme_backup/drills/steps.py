"""The steps of a drill inside the project, in their order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from django.apps import apps
from django.utils.module_loading import import_string

from mipyme_backup.drills import databases, files, users
from mipyme_backup.drills.error_log import ErrorLog
from mipyme_backup.drills.job import Job, Step, listed
from mipyme_backup.messages import _

ASSERTION = "assertion:"
Check = Callable[[], Iterable[str]]


def steps(job: Job, log: ErrorLog) -> Iterator[tuple[str, Check]]:
    """Yield each step's name and what yields its problems."""
    aliases = [alias for alias, entry in job.databases.items() if entry is not None]
    yield "check", partial(databases.check, aliases)
    yield "migrations", partial(databases.migrations, aliases)
    yield "constraints", partial(databases.constraints, aliases)
    yield "sequences", partial(databases.sequences, aliases)
    if job.files:
        yield "files", partial(files.files, job, aliases)
    if aliases and apps.is_installed("django.contrib.auth"):
        yield "login", users.login
        yield "crud", users.crud
    for path in job.assertions:
        yield f"{ASSERTION}{path}", partial(assertion, path)
    yield "log", log.problems


def assertion(path: str) -> Iterator[str]:
    """Yield why the project's own assertion `path` does not hold: it raises, or returns a value.

    None and True are no such value. A generator and a coroutine are: nothing in them was run yet.
    """
    returned = import_string(path)()
    if returned is not None and returned is not True:
        yield _("it returned %(value)s, and neither nothing nor True") % {"value": repr(returned)}


def take(name: str, check: Check) -> Step:
    """Take one step; whatever it raises is its problem."""
    began = time.monotonic()
    problems: list[str] = []
    try:
        problems.extend(check())
    except AssertionError as error:
        problems.append(str(error) or _("an assertion failed"))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the project's code may raise anything
        problems.append(f"{type(error).__name__}: {error}")
    return Step(name=name, seconds=time.monotonic() - began, problems=listed(problems))
