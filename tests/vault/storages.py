"""A storage of tenants, as projects write them: the folder is that of the tenant of the moment."""

from __future__ import annotations

import threading
from pathlib import Path

from django.conf import settings
from django.core.files.storage import FileSystemStorage

moment = threading.local()


class TenantStorage(FileSystemStorage):
    @property
    def base_location(self) -> str:
        return str(Path(settings.TENANTS) / moment.tenant)  # type: ignore[misc]

    @property
    def location(self) -> str:
        return self.base_location


def tenants() -> FileSystemStorage:
    return TenantStorage(location=settings.TENANTS)  # type: ignore[misc]


def scans() -> FileSystemStorage:
    return FileSystemStorage(location=settings.SCANS)  # type: ignore[misc]
