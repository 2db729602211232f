"""The public Python API: what the commands, tasks and pages call, and what other code may.

Every function is keyword-only, reads the settings, builds the parts, calls an operation, and
returns a frozen result whose ``to_dict()`` is what ``--json`` prints. All errors are
`mipyme_backup.errors.BackupError`.
"""

from __future__ import annotations

from mipyme_backup.api.given import Silent
from mipyme_backup.api.keeping import (
    KINDS,
    LABEL_LENGTH,
    Listed,
    backup,
    backups,
    complete,
    guards_migrations,
    pin,
    preflight,
    prune,
    verify,
)
from mipyme_backup.api.restoring import drill, note_drill, restore, undo_restore
from mipyme_backup.api.scheduling import coming, due, may_run_job, run_due, run_job, run_rationed
from mipyme_backup.api.showing import (
    Objectives,
    is_ours,
    last_look,
    mark_checklist,
    objectives,
    overview,
    recovery_sheet,
)
from mipyme_backup.api.tasks import (
    PERMISSIONS,
    RESTORING,
    allows_restore,
    ask,
    run_task,
    takes_tasks,
)
from mipyme_backup.api.watching import (
    STATUS_SECONDS,
    alert_channels,
    heartbeat,
    is_monitor,
    status,
    test_alert,
    watch,
)
from mipyme_backup.monitoring.delivery import Delivery
from mipyme_backup.monitoring.last_look import LastLook
from mipyme_backup.monitoring.notifications import Watched
from mipyme_backup.monitoring.overview import Overview
from mipyme_backup.monitoring.status import Status
from mipyme_backup.operations.pins import PinResult
from mipyme_backup.operations.scheduled import Coming, Outcome
from mipyme_backup.parts import build_project, saved_places
from mipyme_backup.results import BackupResult, DrillResult, PruneResult, RestoreResult, Verified
from mipyme_backup.schedule import Due

__all__ = [
    "KINDS",
    "LABEL_LENGTH",
    "PERMISSIONS",
    "RESTORING",
    "STATUS_SECONDS",
    "BackupResult",
    "Coming",
    "Delivery",
    "DrillResult",
    "Due",
    "LastLook",
    "Listed",
    "Objectives",
    "Outcome",
    "Overview",
    "PinResult",
    "PruneResult",
    "RestoreResult",
    "Silent",
    "Status",
    "Verified",
    "Watched",
    "alert_channels",
    "allows_restore",
    "ask",
    "backup",
    "backups",
    "build_project",
    "coming",
    "complete",
    "drill",
    "due",
    "guards_migrations",
    "heartbeat",
    "is_monitor",
    "is_ours",
    "last_look",
    "mark_checklist",
    "may_run_job",
    "note_drill",
    "objectives",
    "overview",
    "pin",
    "preflight",
    "prune",
    "recovery_sheet",
    "restore",
    "run_due",
    "run_job",
    "run_rationed",
    "run_task",
    "saved_places",
    "status",
    "takes_tasks",
    "test_alert",
    "undo_restore",
    "verify",
    "watch",
]
