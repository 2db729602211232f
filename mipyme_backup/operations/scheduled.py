"""Do what is due, once: over two schedulers, a killed worker, and a message that comes again.

Each job has a lock and a record in ``STATE_DIR/schedule``. The record says which slot was tried
last and what became of it; it is written before the work begins, so that a run that is killed
over and over is tried less and less often. The lock dies with its process. Over several hosts
it is the catalog that knows the slots of backups.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Literal

from mipyme_backup import schedule
from mipyme_backup.errors import (
    BackupError,
    PreflightError,
    SlotDoneError,
    StateError,
    reason_of,
)
from mipyme_backup.messages import _
from mipyme_backup.schedule import EVERY, Attempts, Due
from mipyme_backup.state import State
from mipyme_backup.translation import said, translated

FOLDER = "schedule"
CALLED = f"{FOLDER}/called.json"
WHO_TELLS = "status"
"""The job that is done even where nothing can be noted: a full disk is what it should tell of."""

logger = logging.getLogger("mipyme_backup")
Ending = Literal["done", "already_done", "busy", "failed"]


@dataclass(frozen=True, kw_only=True)
class Coming:
    """A job of the schedule: None for `expression` where it is turned off."""

    job: str
    expression: str | None
    next_slot: datetime | None
    last: Attempts | None

    def to_dict(self) -> dict[str, Any]:
        last = self.last
        return {
            "job": self.job,
            "expression": self.expression,
            "next_slot": self.next_slot.isoformat() if self.next_slot else None,
            "last_slot": last.slot.isoformat() if last else None,
            "last_done": last.done if last else None,
            "failed_attempts": last.failed if last else 0,
        }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job that was due ended. ``busy``: another process is doing it right now.

    `warnings` are those of the backup that was made, in English; it is `partial` where a copy or
    something that exists is not in it.
    """

    job: str
    slot: datetime
    ending: Ending
    error: BackupError | None = None
    partial: bool = False
    warnings: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "job": self.job,
            "slot": self.slot.isoformat(),
            "outcome": self.ending,
            "partial": self.partial,
            "warnings": [said(warning) for warning in self.warnings],
            "error": None if self.error is None else translated(self.error.message),
        }


@dataclass(frozen=True, kw_only=True)
class Call:
    """Something called the schedule on this host; `job` is what it is at, "" where at none."""

    at: datetime
    job: str = ""


def note_call(state_dir: Path, now: datetime, job: str = "") -> None:
    """Note that the schedule was called: where that is not known, the status calls it silent."""
    try:
        with _kept(state_dir):
            State(state_dir).make(FOLDER)
            State(state_dir).write(CALLED, {"at": now.isoformat(), "job": job})
    except PreflightError as error:
        logger.warning("%s", error)


def last_call(state_dir: Path) -> Call | None:
    """Return the last call on this host; None where none is known."""
    try:
        return State(state_dir).recall(CALLED, _call)
    except (OSError, StateError):
        return None


def _call(record: Any) -> Call:
    return Call(at=_moment(record["at"]), job=str(record["job"]))


def attempts(state_dir: Path) -> dict[str, Attempts]:
    """Return what became of each job's newest slot, by job."""
    read = {job: _read(state_dir, job) for job in schedule.JOBS}
    return {job: tried for job, tried in read.items() if tried is not None}


def can_be_read(state_dir: Path) -> bool:
    """Say whether this process may know what became of the jobs; that none ran yet, it may."""
    try:
        os.close(os.open(state_dir / FOLDER, os.O_RDONLY | os.O_DIRECTORY))
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def coming(
    known: Mapping[str, Attempts],
    expressions: Mapping[str, str | None],
    now: datetime,
    zone: tzinfo,
) -> list[Coming]:
    """Return each job with what became of its last slot, and its next one; `now` is aware."""
    return [
        Coming(
            job=job,
            expression=expression,
            next_slot=schedule.next_slot(expression, now, zone) if expression else None,
            last=known.get(job),
        )
        for job, expression in ((job, expressions.get(job)) for job in schedule.JOBS)
    ]


def what_is_due(
    state_dir: Path, expressions: Mapping[str, str | None], now: datetime, zone: tzinfo
) -> list[Due]:
    """Return what is due, and note the present slot of each job that is new and waits.

    `now` is aware; a slot of a record that lies ahead of it says nothing, since the clock has
    been set back since. A job whose slot cannot be noted is due: `run_once` says what is wrong.
    """
    known = {job: one for job, one in attempts(state_dir).items() if one.slot <= now}
    unnoted = []
    for job, seen in schedule.first_seen(expressions, known, now, zone).items():
        try:
            with _claim(state_dir, job) as claimed:
                if claimed:
                    _write(state_dir, job, seen)
                    known[job] = seen
        except PreflightError:
            unnoted.append(Due(job=job, slot=seen.slot))
    found = schedule.due(expressions, known, now, zone) + unnoted
    return sorted(found, key=lambda due: schedule.JOBS.index(due.job))


def run_once(state_dir: Path, due: Due, work: Callable[[datetime], object]) -> Outcome:
    """Do the work of a slot, unless it is done already or somebody is at it.

    `work` is called with the slot; an error of it is the outcome's, be it a BackupError or not.
    Where the record cannot be kept that is the outcome's error, and nothing is done but to look
    and tell: once a slot, by whoever is woken in its first quarter of an hour.
    """
    try:
        with _claim(state_dir, due.job) as claimed:
            if not claimed:
                return _outcome(due, "busy")
            begun = _begin(state_dir, due)
            if begun is None:
                return _outcome(due, "already_done")
            outcome = _done(due, work)
            _end(state_dir, begun, outcome)
            return outcome
    except PreflightError as error:
        if due.job == WHO_TELLS and datetime.now(UTC) - due.slot < EVERY:
            logger.warning("%s", error)
            return _done(due, work)
        return _outcome(due, "failed", error)


def is_exhausted(state_dir: Path, due: Due, attempts: int, now: datetime) -> bool:
    """Say whether the slot has failed so often that its next attempt has to be waited for.

    A worker that is killed leaves its message to another one: so a single failure is not enough.
    """
    tried = _read(state_dir, due.job)
    if tried is None or tried.slot != due.slot or tried.done or tried.failed < attempts:
        return False
    return now < schedule.retry_at(tried)


def _begin(state_dir: Path, due: Due) -> Attempts | None:
    """Note that the slot is tried; None where it is done, or a later one was tried already."""
    now = datetime.now(UTC)
    tried = _read(state_dir, due.job)
    again = tried is not None and tried.slot == due.slot
    if tried is not None and (tried.done if again else due.slot < tried.slot <= now):
        return None
    begun = Attempts(slot=due.slot, done=False, failed=1, at=now)
    if tried is not None and again:
        begun = replace(tried, failed=tried.failed + 1, at=now)
    elif tried is not None:
        begun = replace(begun, before=tried.in_a_row, error=tried.error)
    _write(state_dir, due.job, begun)
    return begun


def _end(state_dir: Path, begun: Attempts, outcome: Outcome) -> None:
    """Note how the slot ended; what cannot be noted is tried again, and is done no less."""
    ended = replace(begun, done=True, failed=0, before=0, error="")
    if outcome.error is not None:
        ended = replace(begun, error=str(outcome.error).partition("\n")[0])
    try:
        _write(state_dir, outcome.job, ended)
    except PreflightError as error:
        logger.warning("%s", error)


def _done(due: Due, work: Callable[[datetime], object]) -> Outcome:
    try:
        result = work(due.slot)
    except SlotDoneError:
        return _outcome(due, "already_done")
    except BackupError as error:
        return _outcome(due, "failed", error)
    except Exception as error:  # one job that breaks must not keep the others from their turn
        logger.exception("The job %s broke.", due.job)
        broken = BackupError("%(reason)s", reason=reason_of(error))
        return _outcome(due, "failed", broken)
    return replace(
        _outcome(due, "done"),
        partial=getattr(result, "status", "") == "partial",
        warnings=tuple(getattr(result, "warnings", ())),
    )


def _outcome(due: Due, ending: Ending, error: BackupError | None = None) -> Outcome:
    return Outcome(job=due.job, slot=due.slot, ending=ending, error=error)


@contextlib.contextmanager
def _claim(state_dir: Path, job: str) -> Iterator[bool]:
    """Hold the job's lock; yields False where another process holds it."""
    file = state_dir / FOLDER / f"{job}.lock"
    with _kept(state_dir):
        State(state_dir).make(FOLDER)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _kept(state_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PreflightError(
            _("The record of the schedule in %(folder)s cannot be kept: %(reason)s"),
            hint=_("STATE_DIR needs some room, and must be ours to write."),
            folder=state_dir / FOLDER,
            reason=error.strerror or error,
        ) from error
    except StateError as error:
        message, hint = error.message, error.hint.text
        raise PreflightError(message.text, hint=hint, permanent=None, **message.params) from error


def _read(state_dir: Path, job: str) -> Attempts | None:
    """Return the record of a job; None where there is none that can be read."""
    try:
        return State(state_dir).recall(_name(job), _attempts)
    except (OSError, StateError):
        return None  # as if it had never been tried: better twice than not at all


def _attempts(record: Any) -> Attempts:
    return Attempts(
        slot=_moment(record["slot"]),
        done=bool(record["done"]),
        failed=int(record["failed"]),
        at=_moment(record["at"]) if record["at"] else None,
        before=int(record.get("before", 0)),
        error=str(record.get("error", "")),
    )


def _name(job: str) -> str:
    return f"{FOLDER}/{job}.json"


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment


def _write(state_dir: Path, job: str, tried: Attempts) -> None:
    record = {
        "slot": tried.slot.isoformat(),
        "done": tried.done,
        "failed": tried.failed,
        "at": tried.at.isoformat() if tried.at else None,
        "before": tried.before,
        "error": tried.error,
    }
    with _kept(state_dir):
        State(state_dir).write(_name(job), record)
