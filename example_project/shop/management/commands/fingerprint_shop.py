"""``manage.py fingerprint_shop``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connection

from shop.fingerprint import database_fingerprint, folder_fingerprint


class Command(BaseCommand):
    help = "Print a hash of every row and every uploaded file, as JSON."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        fingerprint = {
            "tables": database_fingerprint(connection),
            "files": folder_fingerprint(Path(settings.MEDIA_ROOT)),
        }
        self.stdout.write(json.dumps(fingerprint))
