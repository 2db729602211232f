"""Drill: restore into a throwaway database and folder, assert, time it, keep the evidence."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mipyme_backup import signals
from mipyme_backup.drills.job import Step, listed
from mipyme_backup.errors import BackupError, KeyMissingError, PreflightError
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.choosing import Choice, choose
from mipyme_backup.operations.drill_report import Asked, keep
from mipyme_backup.operations.loading import differences, load
from mipyme_backup.operations.planning import plan_lines
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.recovery import settle
from mipyme_backup.operations.rehearsing import make_job, rehearse
from mipyme_backup.operations.targets import Request as RestoreRequest
from mipyme_backup.operations.throwaway import Throwaway, throwaway
from mipyme_backup.operations.writing import new_id
from mipyme_backup.results import DrillResult

LOAD = "fetch_and_load:"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for: the backup `identifier`, or the newest; `report` says how it is written.

    `assertions` are the project's own, as dotted paths; `rto` is how long a restore may take.
    """

    identifier: str | None = None
    destination: str | None = None
    assertions: Sequence[str] = ()
    rto: timedelta = timedelta(hours=1)
    report: Asked


def run(
    project: Project, request: Request, progress: Progress, *, wait: bool = False
) -> DrillResult:
    """Rehearse a restore; what is live is neither read nor written. `wait` waits for the lock.

    Returns what was found, good or bad. Raises what keeps it from being tried at all, and, once
    the evidence is kept, what keeps the backup from being loaded.
    """
    with project.lock("drill", wait=wait):
        settle(project)
        choice = choose(project, identifier=request.identifier, destination=request.destination)
        for warning in choice.warnings:
            progress.step(warning)
        watch = _Watch(choice, request)
        try:
            with throwaway(project, choice.manifest, watch.id) as made:
                for name in made.unrehearsed:
                    text = _("The drill does not test %(name)s: its source does not support drills")
                    progress.step(Message(text, {"name": name}))
                asked = RestoreRequest(to_media=made.folder)
                plan_lines(project, asked, choice, made.targets)  # raises what forbids it
                _load(project, choice, made, watch, progress)
                with watch.step("counts") as problems:
                    progress.step(Message(_("Checking what was loaded against the manifest")))
                    problems.extend(_differences(made))
                used, manifest = watch.destinations, choice.manifest
                job = make_job(project, made, manifest, used, request.assertions, progress)
                watch.steps += rehearse(job, limit=request.rto, progress=progress)
        except BackupError as error:
            if watch.steps and not isinstance(error, KeyMissingError | PreflightError):
                _finish(project, request, watch)
            raise
        return _finish(project, request, watch)


class _Watch:
    """Times the steps of a drill, and collects what they found."""

    def __init__(self, choice: Choice, request: Request) -> None:
        self.id = new_id()
        self.steps: list[Step] = []
        self.destinations: dict[str, str] = {}
        self._choice = choice
        self._rto = request.rto
        self._started_at = datetime.now(UTC)
        self._began = time.monotonic()

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time the block as a step; it adds its problems to the list, or raises one."""
        problems: list[str] = []
        began = time.monotonic()
        try:
            yield problems
        except BackupError as error:
            problems.append(str(error))
            raise
        finally:
            seconds = time.monotonic() - began
            self.steps.append(Step(name=name, seconds=seconds, problems=listed(problems)))

    def result(self) -> DrillResult:
        used = dict.fromkeys(self.destinations.values() or self._choice.destinations)
        return DrillResult(
            id=self.id,
            backup_id=self._choice.manifest.id,
            backup_name=self._choice.manifest.name,
            destination=", ".join(used),
            started_at=self._started_at,
            finished_at=datetime.now(UTC),
            seconds=time.monotonic() - self._began,
            rto_seconds=self._rto.total_seconds(),
            steps=tuple(self.steps),
        )


def _load(
    project: Project, choice: Choice, made: Throwaway, watch: _Watch, progress: Progress
) -> None:
    for part in made.targets:
        with watch.step(f"{LOAD}{part.source.name}"):
            used = load(project, choice, [part], progress)
            watch.destinations[part.source.name] = used


def _differences(made: Throwaway) -> Iterable[str]:
    try:
        return differences(made.targets)
    except BackupError as error:
        return [str(error)]


def _finish(project: Project, request: Request, watch: _Watch) -> DrillResult:
    found = watch.result()
    project.catalog.record_drill(found)
    result = keep(project, found, request.report)
    signals.drill_finished.send_robust(sender=run, result=result)
    return result
