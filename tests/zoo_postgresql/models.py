"""Models whose columns only PostgreSQL has."""

from __future__ import annotations

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import (
    ArrayField,
    BigIntegerRangeField,
    DateRangeField,
    DateTimeRangeField,
    DecimalRangeField,
    IntegerRangeField,
    RangeOperators,
)
from django.contrib.postgres.indexes import BrinIndex, GinIndex, HashIndex
from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.models import Deferrable


class Lists(models.Model):
    numbers = ArrayField(models.BigIntegerField(), null=True)
    words = ArrayField(models.TextField(null=True), default=list)
    grid = ArrayField(ArrayField(models.DecimalField(max_digits=8, decimal_places=2)), null=True)
    search = SearchVectorField(null=True)

    class Meta:
        indexes = [
            GinIndex(fields=["words"], name="zoo_lists_words"),
            GinIndex(fields=["search"], name="zoo_lists_search"),
        ]


class Spans(models.Model):
    whole = IntegerRangeField(null=True)
    big = BigIntegerRangeField(null=True)
    exact = DecimalRangeField(null=True)
    days = DateRangeField(null=True)
    moments = DateTimeRangeField(null=True)


class Booking(models.Model):
    """An exclusion constraint and a deferrable unique one, both with their own index."""

    room = models.IntegerField()
    during = DateTimeRangeField()
    place = models.IntegerField()

    class Meta:
        db_table_comment = "Rooms; \"quoted\" and 'quoted'"
        constraints = [
            ExclusionConstraint(
                name="zoo_booking_overlap",
                expressions=[("during", RangeOperators.OVERLAPS)],
                condition=models.Q(room=1),
            ),
            models.UniqueConstraint(
                fields=["place"], name="zoo_booking_place", deferrable=Deferrable.DEFERRED
            ),
        ]
        indexes = [
            BrinIndex(fields=["place"], name="zoo_booking_brin"),
            HashIndex(fields=["room"], name="zoo_booking_hash"),
        ]
