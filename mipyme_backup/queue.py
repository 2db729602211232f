"""The way from a page to a worker: Celery's, where the project has a broker. Imported lazily."""

from __future__ import annotations

import importlib.util
from datetime import timedelta

from mipyme_backup.errors import PreflightError
from mipyme_backup.messages import _

RUN_TASK = "mipyme_backup.run_task"
PICKLE = frozenset({"pickle", "application/x-python-serialize"})
"""The names under which Celery knows pickle."""

PATIENCE = 4
"""Seconds that a page waits for the broker."""


def has_broker() -> bool:
    """Say whether the project has told Celery of a broker; asks nobody whether it is there."""
    if importlib.util.find_spec("celery") is None:
        return False
    from celery import current_app

    return bool(current_app.conf.broker_write_url)


def takes_pickle() -> bool:
    """Say whether a worker unpickles messages: what that runs, the writer of the message chooses.

    Celery takes JSON alone unless `accept_content` says otherwise.
    """
    if not has_broker():
        return False
    from celery import current_app

    return not PICKLE.isdisjoint(current_app.conf.accept_content or ())


def send(task_id: str, expires: timedelta) -> None:
    """Send a task that was kept to the workers; raises PreflightError where that cannot be.

    The message is worth nothing after `expires`.
    """
    from celery import current_app

    options = {**current_app.conf.broker_transport_options}
    options.setdefault("socket_connect_timeout", PATIENCE)
    options.setdefault("socket_timeout", PATIENCE)
    try:
        with current_app.connection_for_write(
            connect_timeout=PATIENCE, transport_options=options
        ) as connection:
            connection.ensure_connection(max_retries=1, timeout=PATIENCE)
            current_app.send_task(
                RUN_TASK,
                kwargs={"task_id": task_id},
                connection=connection,
                retry=False,
                ignore_result=True,
                expires=expires.total_seconds(),
            )
    except Exception as error:
        raise PreflightError(
            _("The broker of the workers cannot be reached: %(reason)s"),
            hint=_("Look whether it runs; meanwhile, run the command on the server."),
            reason=type(error).__name__,  # its text may quote the address, with the password
        ) from error
