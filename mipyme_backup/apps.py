"""Registers the app with Django: its system checks, and the guard of ``migrate``."""

import logging
from typing import Any

from django.apps import AppConfig
from django.db.models.signals import pre_migrate
from django.utils.translation import gettext_lazy as _


class MipymeBackupConfig(AppConfig):
    name = "mipyme_backup"
    verbose_name = _("Backups")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from mipyme_backup import checks  # noqa: F401 - registers the system checks
        from mipyme_backup.printable import PrintableRecords

        logging.getLogger("mipyme_backup").addFilter(PrintableRecords())
        pre_migrate.connect(_guard, sender=self)


def _guard(**kwargs: Any) -> None:
    from mipyme_backup.migrate_guard import guard  # only where something is migrated

    guard(**kwargs)
