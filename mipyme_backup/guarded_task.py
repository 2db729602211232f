"""The Celery task that trusts no message: anyone who reaches the broker can write one.

Celery checks arguments where they are sent, not where they arrive. What is not in the form of the
task's function is refused in one sentence that quotes nothing of the message: its text could forge
lines of the worker's log. Import this module only with Celery there.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery import Task

from mipyme_backup.messages import Message, _
from mipyme_backup.translation import in_project_language, translated

if TYPE_CHECKING:
    _Task = Task[Any, Any]
else:
    _Task = Task

RETRIES = 3
LONGEST_TEXT = 255
MOST_NAMES = 100

NOT_ITS_FORM = Message(
    _(
        "The message for the task %(task)s was refused: its arguments are not in the form that"
        " this version takes. Check which program sent it."
    )
)


class TaskError(Exception):
    """Why a task failed, and the next step, in words that any result back end can keep.

    It is said whole in one sentence, so that the worker's log needs no traceback.
    """


class RefusedError(TaskError):
    """Why nothing was done for a message."""


class GuardedTask(_Task):
    """Calls its function with arguments of the right form only: short texts, or lists of them.

    Raises RefusedError for all others.
    """

    throws = (TaskError,)
    max_retries = RETRIES

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if not (_is_count(self.request.retries) and _has_form(self.run, args, kwargs)):
            message = Message(NOT_ITS_FORM.text, {"task": self.name})
            with in_project_language():
                raise RefusedError(translated(message))
        return self.run(*args, **kwargs)


def _is_count(retries: object) -> bool:
    """Say whether Celery can have counted so far: the pause before a retry doubles with it."""
    return type(retries) is int and 0 <= retries <= RETRIES


def _has_form(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    signature = inspect.signature(function)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return False
    return all(
        _is_of_kind(value, signature.parameters[name].default) for name, value in given.items()
    )


def _is_of_kind(value: object, default: object) -> bool:
    """Say whether it is a text, or a list of texts where that is the default."""
    if default is None and value is None:
        return True
    if isinstance(default, tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) <= MOST_NAMES
            and all(map(_is_short_text, value))
        )
    return _is_short_text(value)


def _is_short_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and value.isprintable()
