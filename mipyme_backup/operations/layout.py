"""Where objects of ours lie at a destination, by their names; `docs/format.md` tells people."""

from __future__ import annotations

import re

from mipyme_backup.destinations.listing import Layout
from mipyme_backup.manifest import FILE_NAME

RECOVERY_PROGRAM = "recover.py"
PIN_FILE = "pinned"
"""Beside the manifest of a pinned backup lies one that is not empty."""

BACKUP_FOLDER = re.compile(
    r"((mipyme_backup|manual|pre_deploy|safety_before_restore)_\d{8}T\d{6}Z"
    r"|monthly/mipyme_backup_\d{6})(_\d+|_[0-9a-f]{16})?",
    re.ASCII,
)
PACK_FOLDER = re.compile(r"pool/[0-9a-f]{32}")
VOLUME = re.compile(r"[A-Za-z0-9._%+=@-]+\.\d{5}", re.ASCII)

LAYOUT = Layout(
    files=frozenset({RECOVERY_PROGRAM}),
    folders=re.compile(f"{BACKUP_FOLDER.pattern}|{PACK_FOLDER.pattern}", re.ASCII),
    above=frozenset({"monthly", "pool"}),
    stored=re.compile(f"{re.escape(FILE_NAME)}|{PIN_FILE}|{VOLUME.pattern}", re.ASCII),
    prefixes=(
        "manual_",
        "mipyme_backup_",
        "monthly/",
        "pool/",
        "pre_deploy_",
        RECOVERY_PROGRAM,
        "safety_before_restore_",
    ),
)
