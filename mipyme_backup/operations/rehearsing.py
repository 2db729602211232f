"""Runs the project on what a drill loaded, in a process that knows nothing of what is live."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import ENVIRONMENT_VARIABLE
from django.conf import settings as django_settings

from mipyme_backup.drills.job import Job, Step, listed
from mipyme_backup.errors import PreflightError, ProcessError
from mipyme_backup.manifest import Manifest
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.drill_report import step_title
from mipyme_backup.operations.loading import openers
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.throwaway import Throwaway, databases
from mipyme_backup.private_files import make_folder, write_file
from mipyme_backup.process import CHUNK, Child, Reader
from mipyme_backup.sources.media.index import INDEX_NAME, FileRecord, read_records

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
    media = next((s for s, _target in made.targets if s.name == project.media.name), None)
    folder, hashes = made.folder / "project", made.folder / "hashes.sqlite3"
    make_folder(folder)
    if media is not None:
        destination = destinations[media.name]
        _keep_hashes(hashes, openers(project, destination, manifest, media, progress))
    return Job(
        settings=_settings_module(),
        databases=databases(project, made),
        folder=str(folder),
        media_storage=project.media.storage if media else None,
        media_folder=str(made.media_folder) if media else None,
        hashes=str(hashes) if media else None,
        assertions=assertions,
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


def _keep_hashes(path: Path, artifacts: Mapping[str, Callable[[], Reader]]) -> None:
    """Write down in an SQLite file what each media file must be."""
    write_file(path, b"")
    with contextlib.closing(sqlite3.connect(path)) as hashes, hashes:
        hashes.execute("CREATE TABLE file (path BLOB PRIMARY KEY, sha256 TEXT) WITHOUT ROWID")
        rows = _files(read_records(artifacts[INDEX_NAME]()))
        hashes.executemany("INSERT INTO file VALUES (?, ?)", rows)


def _files(records: Iterator[Any]) -> Iterator[tuple[bytes, str]]:
    return ((item.path, item.sha256) for item in records if isinstance(item, FileRecord))


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
