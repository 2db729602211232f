"""What a backup saved, as the template ``contents.html`` reads it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mipyme_backup.admin import marks
from mipyme_backup.monitoring.contents import SavedContent


def contents_rows(contents: Iterable[SavedContent]) -> list[dict[str, Any]]:
    """Return a row for each source."""
    return [
        {
            "source": content.source,
            "engine": content.engine,
            "tables": marks.count(content.tables),
            "rows": marks.count(content.rows),
            "files": marks.count(content.files),
            "raw": marks.size(content.raw_size),
            "stored": marks.size(content.stored_size),
            "left_out": content.left_out,
        }
        for content in contents
    ]
