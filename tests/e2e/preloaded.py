"""Imported once by the process that `warm` forks from: whatever needs no settings.

The rest, the models and what imports them, each fork imports for itself; and our checks, which
register themselves as they are imported, and are not those of a project without the app.
"""

from __future__ import annotations

import gc
import importlib
import sys

MODULES = (
    "cronsim",
    "django.contrib.auth.apps",
    "django.contrib.auth.hashers",
    "django.core.mail.backends.smtp",
    "django.core.management",
    "django.core.management.base",
    "django.core.serializers.json",
    "django.db.backends.postgresql.base",
    "django.db.backends.sqlite3.base",
    "django.db.migrations.executor",
    "django.db.models",
    "django.forms",
    "django.http",
    "django.template",
    "django.template.defaultfilters",
    "django.template.defaulttags",
    "django.views.debug",
    "gnupg",
    "mipyme_backup.apps",
    "mipyme_backup.conf",
    "mipyme_backup.destinations",
    "mipyme_backup.drills.job",
    "mipyme_backup.encryption",
    "mipyme_backup.management.base",
    "mipyme_backup.manifest",
    "mipyme_backup.monitoring.contents",
    "mipyme_backup.monitoring.delivery",
    "mipyme_backup.monitoring.heartbeat",
    "mipyme_backup.operations.scheduled",
    "mipyme_backup.policy.checklist",
    "mipyme_backup.policy.retention",
    "mipyme_backup.sources",
    "mipyme_backup.streams",
    "psycopg",
    "rich.console",
    "rich.markup",
    "rich.progress",
    "rich.table",
    "tests.fingerprint",
    "tests.zoo.apps",
)

# It may have been started with -B, which would have each fork compile the same modules again.
sys.dont_write_bytecode = False
for name in MODULES:
    importlib.import_module(name)
gc.freeze()  # a fork that collects garbage need not touch, and so copy, all of this
