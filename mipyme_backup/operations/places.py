"""Where a restore must not put plain data: among backups, in the state, in what is public."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import FileSystemStorage, InvalidStorageError, storages
from django.db import connections

from mipyme_backup.errors import BackupError, RestoreError
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.project import Project
from mipyme_backup.sources.media.location import resolved

SIDECARS = ("-wal", "-shm", "-journal")


def require_apart(project: Project, option: str, path: Path) -> Path:
    """Return `path`, which the operator gave as `option`, with its links resolved.

    Raises RestoreError where it lies in a place that the settings name, or around one, and where
    a link of another user leads to it.
    """
    real = resolved(path, RestoreError)
    for what, place in _places(project):
        if _is_within(real, place) or _is_within(place, real):
            raise RestoreError(
                _("%(option)s names %(path)s, which overlaps %(what)s (%(place)s)."),
                hint=_("Name a folder of its own, outside of all places that the settings name."),
                option=option,
                path=real,
                what=what,
                place=place,
            )
    return real


def require_no_sidecar(path: Path) -> None:
    """Raise RestoreError where SQLite would take the file `path` for part of a database."""
    real = _real(path)
    for alias in connections.settings:
        name = connections.settings[alias].get("NAME")
        live = _real(str(name)) if name else None
        if live and real in {live.with_name(live.name + suffix) for suffix in SIDECARS}:
            raise RestoreError(
                _("SQLite would take %(path)s for a part of the database %(alias)s."),
                hint=_("Name a file that does not end in -wal, -shm or -journal."),
                path=real,
                alias=alias,
            )


def _places(project: Project) -> Iterator[tuple[str | Message, Path]]:
    for name, destination in project.destinations.items():
        with contextlib.suppress(BackupError):  # one that cannot be made has no folder here
            described = "" if destination.remote else destination.describe()
            if os.path.isabs(described):
                yield Message(_("the destination %(name)s"), {"name": name}), _real(described)
    yield "STATE_DIR", _real(project.state_dir)
    for key in ("MEDIA_ROOT", "STATIC_ROOT"):
        if folder := getattr(settings, key, None):
            yield key, _real(folder)
    for folder in getattr(settings, "STATICFILES_DIRS", ()):
        yield "STATICFILES_DIRS", _real(folder[1] if isinstance(folder, tuple) else folder)
    for alias in storages.backends:
        try:
            storage = storages[alias]
        except (ImportError, ImproperlyConfigured, InvalidStorageError, TypeError, ValueError):
            continue
        # Without a folder of its own, Django takes the working directory: that is not meant.
        if isinstance(storage, FileSystemStorage) and os.fspath(storage.base_location or ""):
            yield Message(_("the storage %(alias)s"), {"alias": alias}), _real(storage.location)


def _real(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(path))


def _is_within(path: Path, place: Path) -> bool:
    """Return whether `path` is `place` or below it, by whatever name the file system knows it.

    Parts that do not exist yet are compared without regard to case, as some file systems do.
    """
    for above in (path, *path.parents):
        with contextlib.suppress(OSError):
            if above.samefile(place):
                return True
    beside = Path(*path.parts[: len(place.parts)])
    if os.path.lexists(beside) and os.path.lexists(place):
        return False
    return [part.casefold() for part in beside.parts] == [part.casefold() for part in place.parts]
