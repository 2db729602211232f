"""Saves a media folder in a process of its own, as whoever it runs as; prints what it saw."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from django.conf import settings

from tests.unit.sources.media_trees import Saved, save

if __name__ == "__main__":
    settings.configure()
    folder = Path(sys.argv[1])
    packs = {pack: b"" for pack in json.loads((folder / "packs").read_text())}
    saved = save(folder / "media", Saved(index=(folder / "index").read_bytes(), packs=packs))
    print(
        json.dumps(
            {
                "paths": [json.loads(line)["path"] for line in saved.index.splitlines()],
                "warnings": saved.warnings,
                "facts": saved.facts,
            }
        )
    )
