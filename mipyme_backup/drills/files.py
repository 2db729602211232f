"""Every file that a row names must be there, with the content that was saved."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import storages

from mipyme_backup.drills.job import Job
from mipyme_backup.messages import Message, _
from mipyme_backup.sources.file_fields import file_names


def files(job: Job, aliases: Sequence[str]) -> Iterator[str]:
    """Yield every file of a FileField that is missing, or is not what the backup's index says."""
    if job.media_storage is None or job.media_folder is None or job.hashes is None:
        return
    storage, root = storages[job.media_storage], Path(job.media_folder)
    with closing(sqlite3.connect(job.hashes)) as hashes:
        for alias in aliases:
            for name in sorted(set(file_names(alias, storage=job.media_storage))):
                try:
                    path = Path(storage.path(name))
                except SuspiciousFileOperation:
                    text = _("a row names %(name)r, which is outside the media folder")
                    yield f"{alias}: {Message(text, {'name': name})}"
                    continue
                if problem := _problem(hashes, path, root):
                    yield f"{alias}: {Message(problem.text, {**problem.params, 'name': name})}"


def _problem(hashes: sqlite3.Connection, path: Path, root: Path) -> Message | None:
    key = os.fsencode(os.path.relpath(path, root))
    row = hashes.execute("SELECT sha256 FROM file WHERE path = ?", (key,)).fetchone()
    if row is None:
        return Message(_("a row names %(name)r, which is not in the backup"))
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        text = _("a row names %(name)r, which cannot be read: %(reason)s")
        return Message(text, {"reason": error.strerror})
    if found == row[0]:
        return None
    return Message(_("a row names %(name)r, whose content is not what was saved"))
