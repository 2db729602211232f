"""Registers the app with Django; does nothing else."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class MipymeBackupConfig(AppConfig):
    name = "mipyme_backup"
    verbose_name = _("Backups")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from mipyme_backup import checks  # noqa: F401 - registers the system checks
