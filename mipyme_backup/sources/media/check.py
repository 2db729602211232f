"""Media, parsed whole: every file of the index is in a pack, with the content that it names."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from mipyme_backup.errors import PreflightError
from mipyme_backup.messages import _
from mipyme_backup.process import Reader
from mipyme_backup.sources.media.index import read_records
from mipyme_backup.sources.media.unpack import read_pack
from mipyme_backup.sources.media.wanted import Wanted, require_all


def check_pack(reader: Reader) -> None:
    """Parse one pack to its end; raises DamagedError.

    A member that changed while it was packed is no damage: no index means it.
    """
    for _content in read_pack(reader):
        pass


def check_files(index: Reader, packs: Mapping[str, Callable[[], Reader]], folder: Path) -> None:
    """Read the index and all `packs` (by id); raises DamagedError for what is not whole.

    A table of the files lies in `folder` meanwhile.
    """
    try:
        with contextlib.closing(Wanted(folder)) as wanted:
            _check_files(index, packs, wanted)
    except (OSError, sqlite3.Error) as error:
        raise PreflightError(
            _("The table of the media files cannot be kept in %(folder)s: %(reason)s"),
            hint=_("Free some space there, or set STATE_DIR to a place that has it."),
            folder=folder,
            reason=getattr(error, "strerror", None) or str(error),
        ) from error


def _check_files(index: Reader, packs: Mapping[str, Callable[[], Reader]], wanted: Wanted) -> None:
    mismatched: set[bytes] = set()
    wanted.add(read_records(index))
    for opener in packs.values():
        for content in read_pack(opener()):
            digest = hashlib.sha256()
            for chunk in content.chunks():
                digest.update(chunk)
            files = wanted.with_content(content.sha256)
            if digest.digest() != content.sha256:
                mismatched.update(file.sha256 for file in itertools.islice(files, 1))
                continue
            for file in files:
                if file.size == content.size:
                    wanted.written(file)
    require_all(wanted, mismatched)
