"""A storage of files that takes its time, as one that is far away does."""

from __future__ import annotations

import time
from typing import Any

from django.core.files.storage import FileSystemStorage

SECONDS = 0.3
"""How long each file takes beside what its bytes take."""


class SlowStorage(FileSystemStorage):
    def _save(self, name: str, content: Any) -> str:
        time.sleep(SECONDS)
        saved: str = super()._save(name, content)  # type: ignore[misc]
        return saved
