"""One model for every way in which a table, key or value can be hard to save and restore."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Length, Lower, Now


class Stamped(models.Model):
    """Abstract: its columns must end up in the tables of its children."""

    created = models.DateTimeField(db_index=True)
    changed = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


class Country(models.Model):
    """A text key, and one half of a cycle of foreign keys."""

    code = models.CharField(max_length=2, primary_key=True)
    name = models.CharField(max_length=80)
    capital = models.ForeignKey(
        "City", on_delete=models.SET_NULL, null=True, blank=True, related_name="capital_of"
    )


class City(models.Model):
    """The other half of the cycle, here without a null to break it."""

    id = models.BigAutoField(primary_key=True)
    country = models.ForeignKey(Country, on_delete=models.CASCADE, related_name="cities")
    name = models.CharField(max_length=80)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["country", "name"], name="zoo_city_country_name"),
        ]


class Employee(models.Model):
    """Refers to itself; rows may refer to later ones."""

    id = models.SmallAutoField(primary_key=True)
    name = models.CharField(max_length=80)
    manager = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True)


class Person(models.Model):
    """A UUID key and a symmetrical many-to-many to itself."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=80)
    friends = models.ManyToManyField("self", blank=True)


class Passport(models.Model):
    """The primary key is itself a one-to-one."""

    holder = models.OneToOneField(Person, on_delete=models.CASCADE, primary_key=True)
    number = models.CharField(max_length=20, unique=True)


class Visa(models.Model):
    """A foreign key to a column that is not the primary key."""

    passport = models.ForeignKey(
        Passport, to_field="number", db_column="passport_number", on_delete=models.CASCADE
    )
    until = models.DateField()


class Club(models.Model):
    id = models.AutoField(primary_key=True)
    name = models.CharField(max_length=80, unique=True)
    members = models.ManyToManyField(
        Person, through="Membership", through_fields=("club", "person"), related_name="clubs"
    )


class Membership(models.Model):
    """A many-to-many table with columns of its own."""

    club = models.ForeignKey(Club, on_delete=models.CASCADE)
    person = models.ForeignKey(Person, on_delete=models.CASCADE)
    inviter = models.ForeignKey(
        Person, on_delete=models.SET_NULL, null=True, related_name="invitations"
    )
    joined = models.DateField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["club", "person"], name="zoo_membership_once"),
        ]


class TagManager(models.Manager["Tag"]):
    def get_by_natural_key(self, slug: str) -> Tag:
        return self.get(slug=slug)


class Tag(models.Model):
    """Has a natural key; its real key must survive all the same."""

    id = models.AutoField(primary_key=True)
    slug = models.SlugField(unique=True)

    objects = TagManager()

    def natural_key(self) -> tuple[str]:
        return (self.slug,)


class Article(Stamped):
    title = models.CharField(max_length=200)
    body = models.TextField()
    tags = models.ManyToManyField(Tag, blank=True)
    notes = GenericRelation("Note", object_id_field="object_id")


class Note(models.Model):
    """Points at any model: the content type's number is part of the data."""

    content_type = models.ForeignKey(ContentType, on_delete=models.CASCADE)
    object_id = models.CharField(max_length=64)
    about = GenericForeignKey("content_type", "object_id")
    text = models.TextField()

    class Meta:
        indexes = [models.Index(fields=["content_type", "object_id"], name="zoo_note_about")]


class Place(models.Model):
    name = models.CharField(max_length=80)


class Restaurant(Place):
    """Multi-table inheritance, first step."""

    stars = models.PositiveSmallIntegerField(default=0)


class Pizzeria(Restaurant):
    """Multi-table inheritance, second step, with a parent link under its own name."""

    base = models.OneToOneField(
        Restaurant, on_delete=models.CASCADE, parent_link=True, primary_key=True
    )
    ovens = models.PositiveIntegerField(default=1)


class StarredRestaurant(Restaurant):
    """A proxy: no table, yet a content type and permissions."""

    class Meta:
        proxy = True
        ordering = ["-stars"]


class VisibleManager(models.Manager["Message"]):
    def get_queryset(self) -> models.QuerySet[Message]:
        return super().get_queryset().filter(deleted=False)


class Message(models.Model):
    """The default manager hides rows; a backup must not."""

    text = models.TextField()
    deleted = models.BooleanField(default=False)

    objects = VisibleManager()
    everything: models.Manager[Message] = models.Manager()


class OrderLine(models.Model):
    """Generated columns, database defaults, and constraints of every portable kind."""

    number = models.CharField(max_length=20)
    state = models.CharField(max_length=10, default="open")
    quantity = models.PositiveIntegerField()
    price = models.DecimalField(max_digits=12, decimal_places=2)
    placed = models.DateTimeField(db_default=Now())
    total = models.GeneratedField(
        expression=F("quantity") * F("price"),
        output_field=models.DecimalField(max_digits=24, decimal_places=2),
        db_persist=True,
    )

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(quantity__gt=0), name="zoo_orderline_quantity"),
            models.UniqueConstraint(Lower("number"), name="zoo_orderline_number_lower"),
            models.UniqueConstraint(
                fields=["price"], condition=Q(state="reserved"), name="zoo_orderline_reserved"
            ),
        ]
        indexes = [
            models.Index(fields=["placed"], condition=Q(state="open"), name="zoo_orderline_open"),
            models.Index(Length("number").desc(), "state", name="zoo_orderline_length"),
        ]


class Seat(models.Model):
    """A primary key of two columns."""

    pk = models.CompositePrimaryKey("hall", "number")
    hall = models.CharField(max_length=10)
    number = models.IntegerField()
    taken = models.BooleanField(null=True)


class Everything(models.Model):
    """One row is one set of values at the edge of what its columns can hold."""

    text = models.TextField()
    short = models.CharField(max_length=40, null=True)  # noqa: DJ001 - NULL and '' must stay apart
    tiny = models.SmallIntegerField(null=True)
    whole = models.IntegerField(null=True)
    big = models.BigIntegerField(null=True)
    positive = models.PositiveBigIntegerField(null=True)
    real = models.FloatField(null=True)
    exact = models.DecimalField(max_digits=15, decimal_places=5, null=True)
    truth = models.BooleanField(null=True)
    day = models.DateField(null=True)
    clock = models.TimeField(null=True)
    moment = models.DateTimeField(null=True)
    span = models.DurationField(null=True)
    document: Any = models.JSONField(null=True)
    raw = models.BinaryField(null=True)
    unique_id = models.UUIDField(null=True)
    address = models.GenericIPAddressField(null=True)
    link = models.URLField(max_length=500, blank=True, default="")
    email = models.EmailField(blank=True, default="")


class Document(models.Model):
    """A row that names a file of `MEDIA_ROOT`."""

    title = models.CharField(max_length=80)
    file = models.FileField(upload_to="documents/%Y", max_length=400)


class OddName(models.Model):
    """Names that must be quoted wherever they are used."""

    value = models.IntegerField(db_column="Select")
    note = models.TextField(db_column="ñandú; -- x")

    class Meta:
        db_table = "zoo Odd; Näme -o `x`"


class Empty(models.Model):
    """Has no rows, and a sequence that was never called."""

    value = models.TextField()


class Emptied(models.Model):
    """Had rows once: no rows now, but the next key is not 1."""

    value = models.TextField()


class Ledger(models.Model):
    """Unmanaged: its table is made by SQL and Django never alters it."""

    key = models.IntegerField(primary_key=True, db_column="Key")
    entry = models.CharField(max_length=80, db_column="Entry")

    class Meta:
        managed = False
        db_table = "legacy_ledger"


class Account(models.Model):
    """With `Transfer`, the invariant that writers keep: balance = 1000 + received - sent."""

    balance = models.BigIntegerField(default=1000)


class Transfer(models.Model):
    sender = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="sent")
    receiver = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="received")
    amount = models.BigIntegerField()
