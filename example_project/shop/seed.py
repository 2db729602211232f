"""Fills an empty shop; the same seed gives the same rows and the same files."""

from __future__ import annotations

import random
import unicodedata
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.auth.models import Group, Permission, User
from django.core.files.base import ContentFile
from django.db import transaction
from django.utils.text import slugify

from shop import pictures, words
from shop.models import Category, Customer, Order, OrderLine, Product, Tag

OPENED = datetime(2024, 3, 1, 12, tzinfo=UTC)
YEAR = timedelta(days=365)
CUSTOMERS = 500
ORDERS = 1500
MOST_LINES = 5
# Some products share a picture, byte for byte, as they do in real shops.
PICTURES = 60


@transaction.atomic
def fill(seed: int) -> dict[str, int]:
    """Fill the shop's empty tables and its media; return how many rows of each model were made."""
    random_source = random.Random(seed)
    tags = Tag.objects.bulk_create([Tag(name=name) for name in words.TAGS])
    products = list(_products(random_source))
    _tag(random_source, products, tags)
    _add_files(random_source, products)
    customers = Customer.objects.bulk_create(_customers(random_source))
    orders = Order.objects.bulk_create(_orders(random_source, customers))
    OrderLine.objects.bulk_create(_lines(random_source, orders, products), batch_size=1000)
    _hire()
    models = (Category, Tag, Product, Product.tags.through, Customer, Order, OrderLine)
    return {str(model._meta.verbose_name_plural): model.objects.count() for model in models}


def _moment(random_source: random.Random) -> datetime:
    return OPENED + timedelta(microseconds=random_source.randrange(YEAR // timedelta.resolution))


def _products(random_source: random.Random) -> Iterator[Product]:
    for top_name, groups in words.CATALOGUE.items():
        top = Category.objects.create(name=top_name, slug=slugify(top_name))
        for group_name, base_names in groups.items():
            slug = f"{top.slug}-{slugify(group_name)}"
            group = Category.objects.create(name=group_name, slug=slug, parent=top)
            names = [f"{base} {end}".strip() for base in base_names for end in words.VARIANTS]
            for number, name in enumerate(names):
                yield _product(random_source, group, f"{slug[:12].upper()}-{number:03}", name)


def _product(random_source: random.Random, category: Category, sku: str, name: str) -> Product:
    # Both Unicode forms of an accent occur in real data and must each come back as they were.
    form = random_source.choice(["NFC", "NFD"])
    return Product.objects.create(
        sku=f"{sku}-{category.pk}",
        name=unicodedata.normalize(form, name),
        description="\n".join(random_source.sample(words.NOTES, 3)),
        category=category,
        price=Decimal(random_source.randrange(50_00, 90_000_00)) / 100,
        stock=random_source.randrange(200),
        active=random_source.random() < 0.9,
        attributes={
            "origen": random_source.choice(words.CITIES),
            "peso_kg": random_source.randrange(1, 5000) / 1000,
            "frágil": random_source.random() < 0.2,
            "códigos": [random_source.randrange(10**12) for _ in range(2)],
        },
        created_at=_moment(random_source),
    )


def _tag(random_source: random.Random, products: Iterable[Product], tags: list[Tag]) -> None:
    through = Product.tags.through
    through.objects.bulk_create(
        through(product_id=product.pk, tag_id=tag.pk)
        for product in products
        for tag in random_source.sample(tags, random_source.randrange(5))
    )


def _add_files(random_source: random.Random, products: Iterable[Product]) -> None:
    drawn = [pictures.draw(random_source) for _ in range(PICTURES)]
    for number, product in enumerate(products):
        picture = ContentFile(random_source.choice(drawn))
        product.picture.save(f"{product.name}.png", picture, save=False)
        if number % 3 == 0:
            text = f"{product.name}\n{product.description}\n" * random_source.randrange(1, 200)
            sheet = ContentFile(text.encode())
            product.data_sheet.save(f"ficha técnica {product.name}.txt", sheet, save=False)
    Product.objects.bulk_update(products, ["picture", "data_sheet"], batch_size=200)


def _customers(random_source: random.Random) -> Iterator[Customer]:
    for number in range(CUSTOMERS):
        given = random_source.choice(words.GIVEN_NAMES)
        surname = random_source.choice(words.SURNAMES)
        yield Customer(
            name=f"{given} {surname}",
            email=f"{slugify(surname)}.{number}@example.com",
            tax_id=f"{random_source.choice([20, 23, 27])}-{random_source.randrange(10**8):08}-"
            f"{random_source.randrange(10)}",
            city=random_source.choice(words.CITIES),
            created_at=_moment(random_source),
        )


def _orders(random_source: random.Random, customers: list[Customer]) -> Iterator[Order]:
    for _ in range(ORDERS):
        yield Order(
            number=uuid.UUID(bytes=random_source.randbytes(16), version=4),
            customer=random_source.choice(customers),
            status=random_source.choice(Order.Status.values),
            note=random_source.choice(words.NOTES),
            placed_at=_moment(random_source),
        )


def _lines(
    random_source: random.Random, orders: list[Order], products: list[Product]
) -> Iterator[OrderLine]:
    for order in orders:
        for product in random_source.sample(products, random_source.randint(1, MOST_LINES)):
            yield OrderLine(
                order=order,
                product=product,
                quantity=random_source.randint(1, 12),
                unit_price=product.price,
            )


def _hire() -> None:
    """The people behind the counter; nobody can log in as one before a password is set."""
    group = Group.objects.create(name="Vendedores")
    may_change = Permission.objects.filter(
        content_type__app_label="shop", codename__in=["change_order", "view_product"]
    )
    group.permissions.set(may_change)
    for name in ("begoña", "nahuel"):
        person = User.objects.create(
            username=name, password=UNUSABLE_PASSWORD_PREFIX, is_staff=True, date_joined=OPENED
        )
        person.groups.add(group)
