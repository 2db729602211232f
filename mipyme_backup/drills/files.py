"""Every file that a row names must be there, with the content that was saved."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing

from django.apps import apps

from mipyme_backup.drills.job import Files, Job
from mipyme_backup.messages import Message, _
from mipyme_backup.sources.file_fields import file_fields, named_files
from mipyme_backup.sources.media.storages import label_of


def files(job: Job, aliases: Sequence[str]) -> Iterator[str]:
    """Yield every file of a FileField that is missing, or is not what the backup's index says."""
    for restored in job.files:
        with closing(sqlite3.connect(restored.hashes)) as hashes:
            for using in aliases:
                for path, anywhere in sorted(_named(restored, using)):
                    problem = _problem(hashes, restored.folder, path, anywhere=anywhere)
                    if problem is not None:
                        shown = {**problem.params, "name": path}
                        yield f"{using}: {Message(problem.text, shown)}"


def _named(restored: Files, using: str) -> set[tuple[str, bool]]:
    """Return the paths that rows name, and whether only the end of each is known."""
    fields = {
        field: prefix
        for model in apps.get_models(include_auto_created=True)
        for field in file_fields(model)
        if (prefix := restored.fields.get(label_of(field))) is not None
    }
    return {
        (fields[named.field] + named.name, label_of(named.field) in restored.in_context)
        for named in named_files(using, fields=fields.keys())
    }


def _problem(hashes: sqlite3.Connection, root: str, name: str, *, anywhere: bool) -> Message | None:
    key = os.fsencode(os.path.normpath(name))
    if key.split(b"/")[0] in (b"..", b""):
        return Message(_("a row names %(name)r, which is outside the media folder"))
    row = hashes.execute("SELECT path, sha256 FROM file WHERE path = ?", (key,)).fetchone()
    if row is None and anywhere:
        query = "SELECT path, sha256 FROM file WHERE substr(path, -?) = ?"
        row = hashes.execute(query, (len(key) + 1, b"/" + key)).fetchone()
    if row is None:
        return Message(_("a row names %(name)r, which is not in the backup"))
    try:
        with open(os.path.join(os.fsencode(root), row[0]), "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        text = _("a row names %(name)r, which cannot be read: %(reason)s")
        return Message(text, {"reason": error.strerror})
    if found == row[1]:
        return None
    return Message(_("a row names %(name)r, whose content is not what was saved"))
