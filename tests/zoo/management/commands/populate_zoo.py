from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from tests.zoo.populate import populate


class Command(BaseCommand):
    help = "Fill the models of the zoo."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--database", default="default")
        parser.add_argument("--seed", type=int, default=1)

    def handle(self, *args: Any, **options: Any) -> None:
        populate(options["database"], options["seed"])
