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

from mipyme_backup.drills.job import Files, Job
from mipyme_backup.messages import Message, _
from mipyme_backup.sources.file_fields import file_names


def files(job: Job, aliases: Sequence[str]) -> Iterator[str]:
    """Yield every file of a FileField that is missing, or is not what the backup's index says."""
    for restored in job.files:
        for storage in restored.storages:
            yield from _of_storage(restored, storage, aliases)


def _of_storage(restored: Files, alias: str, databases: Sequence[str]) -> Iterator[str]:
    storage, root = storages[alias], Path(restored.folder)
    with closing(sqlite3.connect(restored.hashes)) as hashes:
        for using in databases:
            for name in sorted(set(file_names(using, storage=alias))):
                try:
                    path = Path(storage.path(name))
                except SuspiciousFileOperation:
                    text = _("a row names %(name)r, which is outside the media folder")
                    yield f"{using}: {Message(text, {'name': name})}"
                    continue
                if problem := _problem(hashes, path, root):
                    yield f"{using}: {Message(problem.text, {**problem.params, 'name': name})}"


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
