"""The admin of the backups: how they are, and what the catalog knows of each."""

from mipyme_backup.admin import backups, checklist, drills, health, restores, tasks

__all__ = ["backups", "checklist", "drills", "health", "restores", "tasks"]
