"""What a fixture can hold only with care, or not at all."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Self

from django.contrib.auth.models import Permission
from django.core.files.storage import FileSystemStorage
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models


class Row(models.Model):
    """Abstract; the type checker does not know this app to be installed."""

    objects: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        abstract = True


class ExactDecoder(json.JSONDecoder):
    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "parse_float": Decimal})


class Sealed(models.TextField):  # type: ignore[type-arg]
    """Refuses to be read where the row says so, as an encrypted field without its key does."""

    def from_db_value(self, value: str, *_args: Any) -> str:
        if value == "locked":
            raise RuntimeError("the secret is hunter2")
        return value


class Vault(Row):
    content = Sealed()


class Receipt(Row):
    """May refer to a vault, or not."""

    vault = models.ForeignKey(Vault, on_delete=models.CASCADE, null=True)


class Stub(Row):
    """Refers to a receipt, which may refer to a vault."""

    receipt = models.ForeignKey(Receipt, on_delete=models.CASCADE)


class Loose(Row):
    """Refers to a vault that need not be there."""

    vault = models.ForeignKey(Vault, on_delete=models.DO_NOTHING, db_constraint=False)


class Chicken(Row):
    egg = models.ForeignKey("Egg", on_delete=models.CASCADE, null=True, related_name="+")
    vault = models.ForeignKey(Vault, on_delete=models.CASCADE, null=True)


class Egg(Row):
    chicken = models.ForeignKey(Chicken, on_delete=models.CASCADE, null=True, related_name="+")
    day = models.DateField(null=True)


class Rate(Row):
    value = models.DecimalField(max_digits=8, decimal_places=2)


class Grant(Row):
    """Its key is the number of a permission."""

    permission = models.OneToOneField(Permission, on_delete=models.CASCADE, primary_key=True)
    note = models.TextField()


class GrantLog(Row):
    """Refers to a permission's number in a way that has no natural key."""

    grant = models.ForeignKey(Grant, on_delete=models.CASCADE)


class Measured(Row):
    """JSON whose numbers are decimals in Python."""

    document: Any = models.JSONField(encoder=DjangoJSONEncoder, decoder=ExactDecoder)


def beside_the_media() -> FileSystemStorage:
    return FileSystemStorage(location=Path("/nonexistent/elsewhere"))


def below_the_media() -> FileSystemStorage:
    from django.conf import settings

    return FileSystemStorage(location=Path(settings.MEDIA_ROOT) / "private" / "papers")


class Upload(Row):
    public = models.FileField()
    private = models.FileField(storage=below_the_media)
    elsewhere = models.FileField(storage=beside_the_media)
