"""``manage.py seed_shop``"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from shop import seed
from shop.models import Category


class Command(BaseCommand):
    help = "Fill an empty shop with products, pictures, customers and orders."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--seed", type=int, default=1, help="the same number gives the same shop (default: 1)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if Category.objects.exists():
            raise CommandError("The shop is not empty; seed_shop fills an empty one.")
        counts = seed.fill(options["seed"])
        for name, count in counts.items():
            self.stdout.write(f"{count:>7,} {name}")
