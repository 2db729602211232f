"""Runs the project on what a drill loaded, in a process that knows nothing of what is live."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import ENVIRONMENT_VARIABLE
from django.conf import settings as django_settings

from mipyme_backup.drills.job import Files, Job, Step, listed
from mipyme_backup.errors import PreflightError, ProcessError
from mipyme_backup.manifest import Manifest
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.drill_report import step_title
from mipyme_backup.operations.loading import openers
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.targets import Part
from mipyme_backup.operations.throwaway import Throwaway, databases
from mipyme_backup.private_files import make_folder, write_file
from mipyme_backup.process import CHUNK, Child
from mipyme_backup.sources.base import StoredIn

LONGEST_STEP = 3600.0


def make_job(
    project: Project,
    made: Throwaway,
    manifest: Manifest,
    destinations: Mapping[str, str],
    assertions: Sequence[str],
    progress: Progress,
) -> Job:
    """Return what the process of the drill is to do; `destinations` are where each source was read.

    Raises PreflightError where there is no settings module to run the project with.
    """
    folder = made.folder / "project"
    make_folder(folder)
    return Job(
        settings=_settings_module(),
        databases=databases(project, made),
        folder=str(folder),
        files=[
            _files(project, part, place, manifest, destinations[part.source.name], progress)
            for part, place in zip(made.targets, made.places, strict=True)
            if part.source.stored_in is not None
        ],
        assertions=assertions,
    )


def _files(
    project: Project,
    part: Part,
    place: Path,
    manifest: Manifest,
    destination: str,
    progress: Progress,
) -> Files:
    """Return the files that were restored to `place`, having written down what each must be."""
    hashes = place.with_name(f"{place.name}.hashes")
    opened = openers(project, destination, manifest, part.saved, progress)
    _keep_hashes(hashes, part.source.stored_files(opened))
    kept = part.source.stored_in or StoredIn()
    return Files(
        folder=str(place),
        hashes=str(hashes),
        aliases=kept.aliases,
        fields=kept.fields,
        in_context=kept.in_context,
    )


def rehearse(job: Job, *, limit: timedelta, progress: Progress) -> list[Step]:
    """Return the steps that the project took; one that is silent for twice `limit` is ended."""
    job_file = Path(job.folder) / "job.json"
    write_file(job_file, job.dump())
    seconds = max(LONGEST_STEP, 2 * limit.total_seconds())
    return _Rehearsal(command(job_file), environment(os.environ, sys.path), seconds).run(progress)


def command(job_file: Path) -> list[str]:
    """Return the arguments of the drill's process; the working folder is not among its modules."""
    return [sys.executable, "-P", "-m", "mipyme_backup.drills", str(job_file)]


def environment(ours: Mapping[str, str], path: Sequence[str]) -> dict[str, str]:
    """Return `ours`, from which the project's settings may be read, with our module `path`."""
    return {**ours, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in path)}


def _keep_hashes(path: Path, files: Iterable[tuple[bytes, str]]) -> None:
    """Write down in an SQLite file what each file must be."""
    write_file(path, b"")
    with contextlib.closing(sqlite3.connect(path)) as hashes, hashes:
        hashes.execute("CREATE TABLE file (path BLOB PRIMARY KEY, sha256 TEXT) WITHOUT ROWID")
        hashes.executemany("INSERT INTO file VALUES (?, ?)", files)


def _settings_module() -> str:
    module = getattr(django_settings, "SETTINGS_MODULE", "") or os.environ.get(ENVIRONMENT_VARIABLE)
    if not module:
        raise PreflightError(
            _("A drill runs the project in a process of its own, and there is no settings module."),
            hint=_("Set DJANGO_SETTINGS_MODULE."),
        )
    return str(module)


class _Rehearsal:
    """The process, and the steps that it told of."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], seconds: float) -> None:
        self._argv, self._env, self._seconds = argv, env, seconds
        self._steps: list[Step] = []
        self._begun = ""
        self._ended = False
        self._since = time.monotonic()

    def run(self, progress: Progress) -> list[Step]:
        problem = _("the process of the drill ended before its last step")
        child = Child(self._argv, env=self._env, idle_timeout=self._seconds)
        rest = b""
        try:
            while data := child.read(CHUNK):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._hear(json.loads(line), progress)
        except ProcessError as error:
            problem = str(error)
        finally:
            child.close()
        if not self._ended:
            seconds = time.monotonic() - self._since
            step = Step(name=self._begun or "check", seconds=seconds, problems=listed([problem]))
            self._steps.append(step)
        return self._steps

    def _hear(self, event: Mapping[str, Any], progress: Progress) -> None:
        if event.get("begin") == self._begun:
            return
        if "begin" in event:
            self._begun, self._since = event["begin"], time.monotonic()
            progress.step(Message(_("Drill: %(step)s"), {"step": step_title(self._begun)}))
        elif "step" in event:
            told = event["step"]
            self._steps.append(
                Step(name=told["name"], seconds=told["seconds"], problems=tuple(told["problems"]))
            )
        else:
            self._ended = True
