"""Rows that name files in storages of every kind."""

from __future__ import annotations

from django.core.files.storage import Storage, storages
from django.db import models

from tests.vault.storages import scans, tenants


def private() -> Storage:
    return storages["private"]


class Paper(models.Model):
    plain = models.FileField(blank=True)
    hidden = models.FileField(storage=private, blank=True)
    scan = models.FileField(storage=scans, blank=True)
    contract = models.FileField(storage=tenants, blank=True)

    def __str__(self) -> str:
        return str(self.pk)
