"""``manage.py check_shop``"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.db.models import F, Sum
from django.test import Client

from shop.models import Customer, Order, OrderLine, Product


class Command(BaseCommand):
    help = "Open the front page as a visitor does, and look whether every picture is there."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            turnover = OrderLine.objects.aggregate(sum=Sum(F("quantity") * F("unit_price")))["sum"]
            counts = [model.objects.count() for model in (Product, Customer, Order)]
            pictures = [product.picture for product in Product.objects.exclude(picture="")]
            page = Client(SERVER_NAME=settings.ALLOWED_HOSTS[0]).get("/", secure=True)
        except DatabaseError as error:
            reason = str(error).partition("\n")[0]
            raise CommandError(f"The shop is broken: {reason}") from error
        missing = [picture.name for picture in pictures if not _exists(picture)]
        if page.status_code != 200 or missing:
            raise CommandError(
                f"The shop is broken: its front page answers {page.status_code}, and "
                f"{len(missing)} of {len(pictures)} pictures are missing."
            )
        self.stdout.write(
            f"The shop is open: {counts[0]:,} products, {counts[1]:,} customers, "
            f"{counts[2]:,} orders worth {turnover or 0:,.2f}; "
            f"all {len(pictures):,} pictures are there."
        )


def _exists(picture: Any) -> bool:
    return bool(picture.storage.exists(picture.name))
