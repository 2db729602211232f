from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import connections

from tests.fingerprint import fingerprint


class Command(BaseCommand):
    help = "Print what a database holds as JSON, one entry for each thing in it."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--database", default="default")
        parser.add_argument("--name", help="another database of the same server, another file")

    def handle(self, *args: Any, **options: Any) -> None:
        connection = connections[options["database"]].copy()
        if options["name"]:
            connection.settings_dict["NAME"] = options["name"]
        self.stdout.write(json.dumps(fingerprint(connection)))
