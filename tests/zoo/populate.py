"""Fills the zoo: the same seed gives the same rows, on every engine that can hold them."""

from __future__ import annotations

import itertools
import math
import random
import uuid
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from django.apps import apps
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.core.files.base import ContentFile
from django.db import connections, models, transaction

from tests.zoo.models import (
    Account,
    Article,
    City,
    Club,
    Country,
    Document,
    Employee,
    Emptied,
    Everything,
    Ledger,
    Membership,
    Message,
    Note,
    OddName,
    OrderLine,
    Passport,
    Person,
    Pizzeria,
    Restaurant,
    Seat,
    Tag,
    Transfer,
    Visa,
)

_Row = TypeVar("_Row", bound=models.Model)

ROWS = 300
EPOCH = datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

SCRIPTS = (
    "plain",
    "",
    " leading and trailing ",
    'It\'s a "quote"; \\N \\. \\ % %s {x} <b>&amp;</b> $1 -- /* */',
    "tab\tnewline\ncarriage\rreturn\r\nescape\x1b bell\x07 unit\x1f delete\x7f next\x85 end",
    "ñandú Ñ ß ẞ İı Ǆ ﬁ",
    "e\u0301 and \u00e9, A\u030a and \u00c5 and \u212b",
    "שלום עולם \u202eright to left\u202c مرحبا بالعالم",
    "漢字 かな カナ 한글 ไทย देवनागरी தமிழ் ქართული ᚠᚢᚦ",
    "🦆 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 \U0010fffd \ue000 \ufeffmark \ufffd \u2028\u2029 \u200b",
    "Z̷̡͖̞̐a̴͎̓l̵̢̀g̸̨̛o̶͕͛",
    "\\x00 \\u0000 &#0; NULL null None",
)

FLOATS = (0.0, -0.0, 0.1 + 0.2, 5e-324, -1.7976931348623157e308, math.pi, 1e15, 2.0**53 + 2)

DOCUMENTS: tuple[Any, ...] = (
    {},
    [],
    "",
    "text 🦆 \u2028",
    0,
    -12345678901234567,
    0.1,
    True,
    {"": [None, {"a": {"b": [1, 2.5, "ñ", False]}}], "ключ": "\\u0000 \" ' \n"},
    [[[[[[]]]]]],
)


def populate(using: str = "default", seed: int = 1) -> None:
    """Fill every model of the zoo in the alias `using`, and what only its engine has.

    The tables must be empty. Files of `Document` go to the default storage.
    """
    chance = random.Random(seed)
    with transaction.atomic(using=using):
        _geography(using, chance)
        _people(using, chance)
        _texts(using, chance)
        _places(using, chance)
        _orders(using, chance)
        _edges(using, chance)
        _keys(using, chance)
        _accounts(using, chance)
        _users(using)
    if connections[using].vendor == "sqlite":
        _sqlite_only(using)
    if apps.is_installed("tests.zoo_postgresql"):
        from tests.zoo_postgresql.populate import populate_postgresql

        populate_postgresql(using, seed)


def _fill(using: str, rows: Iterable[_Row]) -> list[_Row]:
    made = list(rows)
    type(made[0])._base_manager.using(using).bulk_create(made, batch_size=200)
    return made


def _words(chance: random.Random) -> str:
    return " ".join(chance.choice(SCRIPTS) for _ in range(chance.randint(1, 4)))


def _moment(chance: random.Random) -> datetime:
    return EPOCH + timedelta(microseconds=chance.randint(-(10**15), 10**14))


def _geography(using: str, chance: random.Random) -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    countries = _fill(
        using, [Country(code=a + b, name=f"{a}{b} land") for a in letters[:18] for b in letters]
    )
    cities = _fill(
        using,
        [
            City(country=chance.choice(countries), name=f"{_words(chance)[:40]} {number}")
            for number in range(ROWS)
        ],
    )
    for country in countries[: ROWS // 2]:
        country.capital = chance.choice(cities)
        country.save(using=using)
    # Each row's manager is the next one: the rows cannot be loaded in the order of their keys.
    staff = _fill(using, [Employee(id=n, name=f"employee {n}") for n in range(-5, ROWS) if n])
    for employee, manager in itertools.pairwise(staff):
        employee.manager = manager
    Employee.objects.using(using).bulk_update(staff, ["manager"], batch_size=200)
    Employee.objects.using(using).create(id=32767, name="the last small number")


def _people(using: str, chance: random.Random) -> None:
    people = _fill(
        using,
        [
            Person(id=uuid.UUID(int=chance.getrandbits(128)), name=_words(chance)[:80])
            for _ in range(ROWS)
        ],
    )
    for person in people[:50]:
        person.friends.add(*chance.sample(people, 3))
    passports = _fill(
        using, [Passport(holder=person, number=f"P{n:06}") for n, person in enumerate(people)]
    )
    _fill(
        using,
        [
            Visa(passport=chance.choice(passports), until=date(2030, 1, 1) + timedelta(days=n))
            for n in range(ROWS)
        ],
    )
    clubs = _fill(using, [Club(name=f"club {n}") for n in range(20)])
    for club in clubs:
        _fill(
            using,
            [
                Membership(
                    club=club,
                    person=person,
                    inviter=chance.choice([None, *people]),
                    joined=date(2000, 2, 29),
                )
                for person in chance.sample(people, 20)
            ],
        )


def _texts(using: str, chance: random.Random) -> None:
    tags = _fill(using, [Tag(id=1000 - n, slug=f"tag-{n}") for n in range(100)])
    articles = _fill(
        using,
        [
            Article(created=_moment(chance), title=f"article {n}", body=_words(chance) * 20)
            for n in range(ROWS)
        ],
    )
    Article.objects.using(using).update(changed=EPOCH)
    for article in articles[:100]:
        article.tags.add(*chance.sample(tags, 4))
    types = ContentType.objects.db_manager(using)
    targets = [(types.get_for_model(Article), "1"), (types.get_for_model(Country), "AB")]
    _fill(
        using,
        [
            Note(content_type=kind, object_id=key, text=_words(chance))
            for kind, key in targets * (ROWS // 2)
        ],
    )
    _fill(using, [Message(text=_words(chance), deleted=n % 3 == 0) for n in range(ROWS)])


def _places(using: str, chance: random.Random) -> None:
    # bulk_create cannot make children of concrete models.
    for number in range(60):
        Restaurant.objects.using(using).create(name=f"place {number}", stars=chance.randint(0, 3))
        Pizzeria.objects.using(using).create(name=_words(chance)[:80], stars=1, ovens=number)


def _orders(using: str, chance: random.Random) -> None:
    _fill(
        using,
        [
            OrderLine(
                number=f"Order-{n}",
                state="reserved" if n % 10 == 0 else "open",
                quantity=chance.randint(1, 2**31 - 1),
                price=Decimal(n * 1000 + chance.randint(0, 999)) / 100,
                placed=_moment(chance),
            )
            for n in range(ROWS)
        ],
    )


def _edges(using: str, chance: random.Random) -> None:
    rows = [Everything(text=text, short=text[:40], document=[text]) for text in SCRIPTS]
    rows += [Everything(text="float", real=value) for value in FLOATS]
    rows += [Everything(text="json", document=value) for value in DOCUMENTS]
    rows += [
        Everything(
            text="lowest",
            tiny=-(2**15),
            whole=-(2**31),
            big=-(2**63),
            positive=0,
            exact=Decimal("-9999999999.99999"),
            truth=False,
            day=date.min,
            clock=time.min,
            moment=datetime(1, 1, 2, tzinfo=UTC),
            span=timedelta(days=-106751991),
            raw=b"",
            unique_id=uuid.UUID(int=0),
            address="::",
        ),
        Everything(
            text="highest",
            tiny=2**15 - 1,
            whole=2**31 - 1,
            big=2**63 - 1,
            positive=2**63 - 1,
            exact=Decimal("9999999999.99999"),
            truth=True,
            day=date.max,
            clock=time.max,
            moment=datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=UTC),
            span=timedelta(days=106751990, microseconds=1),
            raw=bytes(range(256)) * 400,
            unique_id=uuid.UUID(int=2**128 - 1),
            address="255.255.255.255",
        ),
    ]
    rows += [
        Everything(
            text=_words(chance),
            big=chance.randint(-(2**63), 2**63 - 1),
            real=chance.uniform(-1, 1),
            exact=Decimal(chance.randint(-(10**14), 10**14)).scaleb(-5),
            moment=_moment(chance),
            clock=_moment(chance).time(),
            span=timedelta(microseconds=chance.randint(-(10**12), 10**12)),
            raw=chance.randbytes(chance.randint(0, 500)),
        )
        for _ in range(ROWS)
    ]
    if connections[using].vendor == "postgresql":
        rows += [Everything(text="float", real=value) for value in (math.nan, math.inf, -math.inf)]
    _fill(using, rows)


def _keys(using: str, chance: random.Random) -> None:
    _fill(using, [Seat(hall=hall, number=n, taken=None) for hall in "ABC" for n in range(-50, 50)])
    _fill(using, [OddName(value=n, note=_words(chance)) for n in range(ROWS)])
    _fill(using, [Emptied(value=str(n)) for n in range(ROWS)])
    Emptied.objects.using(using).all().delete()
    _fill(using, [Ledger(key=n * 3, entry=f"entry {n} ñ") for n in range(ROWS)])
    for number in range(5):
        document = Document(title=f"document {number}")
        content = ContentFile(chance.randbytes(number * 1000))
        document.file.save(f"ñ {number} file.bin", content, save=False)
        document.save(using=using)


def _accounts(using: str, chance: random.Random) -> None:
    accounts = _fill(using, [Account() for _ in range(50)])
    transfers = []
    for _ in range(ROWS):
        sender, receiver = chance.sample(accounts, 2)
        amount = chance.randint(1, 100)
        sender.balance -= amount
        receiver.balance += amount
        transfers.append(Transfer(sender=sender, receiver=receiver, amount=amount))
    Account.objects.using(using).bulk_update(accounts, ["balance"], batch_size=200)
    _fill(using, transfers)


def _users(using: str) -> None:
    group = Group.objects.using(using).create(name="editors")
    users = [User(username=f"user{n}", password="!", date_joined=EPOCH) for n in range(10)]
    for user in _fill(using, users):
        user.groups.add(group)


def _sqlite_only(using: str) -> None:
    statements: list[tuple[str, list[Any]]] = [
        ("INSERT INTO keyless VALUES (%s, %s)", [b"\x00\xff", "blob"]),
        ("INSERT INTO keyless VALUES (%s, %s)", ["12", None]),
        ("INSERT INTO keyless VALUES (%s, %s)", [12, "same text as above, other type"]),
        ("INSERT INTO keyless VALUES (%s, %s)", [math.inf, "twice"]),
        ("INSERT INTO keyless VALUES (%s, %s)", [math.inf, "twice"]),
        ("INSERT INTO keyless VALUES (CAST(x'c328' AS TEXT), %s)", ["not UTF-8"]),
        ("INSERT INTO keyless VALUES ('a' || char(0) || 'b', %s)", ["NUL within"]),
        ("INSERT INTO compact VALUES (%s, %s)", ["key", -(2**63)]),
    ]
    with connections[using].cursor() as cursor:
        for statement, values in statements:
            cursor.execute(statement, values)
