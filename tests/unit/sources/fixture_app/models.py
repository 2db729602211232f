"""What a fixture can hold only with care, or not at all."""

from __future__ import annotations

import functools
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.contrib.auth.models import Permission
from django.core.files.storage import FileSystemStorage
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models


class Sealed(models.TextField):
    """Refuses to be read where the row says so, as an encrypted field without its key does."""

    def from_db_value(self, value: str, *_args: Any) -> str:
        if value == "locked":
            raise RuntimeError("the secret is hunter2")
        return value


class Vault(models.Model):
    content = Sealed()


class Receipt(models.Model):
    """May refer to a vault, or not."""

    vault = models.ForeignKey(Vault, on_delete=models.CASCADE, null=True)


class Stub(models.Model):
    """Refers to a receipt, which may refer to a vault."""

    receipt = models.ForeignKey(Receipt, on_delete=models.CASCADE)


class Loose(models.Model):
    """Refers to a vault that need not be there."""

    vault = models.ForeignKey(Vault, on_delete=models.DO_NOTHING, db_constraint=False)


class Chicken(models.Model):
    egg = models.ForeignKey("Egg", on_delete=models.CASCADE, null=True, related_name="+")


class Egg(models.Model):
    chicken = models.ForeignKey(Chicken, on_delete=models.CASCADE, null=True, related_name="+")
    day = models.DateField(null=True)


class Rate(models.Model):
    value = models.DecimalField(max_digits=8, decimal_places=2)


class Grant(models.Model):
    """Its key is the number of a permission."""

    permission = models.OneToOneField(Permission, on_delete=models.CASCADE, primary_key=True)
    note = models.TextField()


class GrantLog(models.Model):
    """Refers to a permission's number in a way that has no natural key."""

    grant = models.ForeignKey(Grant, on_delete=models.CASCADE)


class Measured(models.Model):
    """JSON whose numbers are decimals in Python."""

    document: Any = models.JSONField(
        encoder=DjangoJSONEncoder,
        decoder=functools.partial(json.JSONDecoder, parse_float=Decimal),  # type: ignore[arg-type]
    )


def beside_the_media() -> FileSystemStorage:
    return FileSystemStorage(location=Path("/nonexistent/elsewhere"))


def below_the_media() -> FileSystemStorage:
    from django.conf import settings

    return FileSystemStorage(location=Path(settings.MEDIA_ROOT) / "private" / "papers")


class Upload(models.Model):
    public = models.FileField()
    private = models.FileField(storage=below_the_media)
    elsewhere = models.FileField(storage=beside_the_media)
