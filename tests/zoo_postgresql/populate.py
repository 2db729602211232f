"""Fills what only PostgreSQL has."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from decimal import Decimal

from django.db import connections, transaction
from django.db.backends.postgresql.psycopg_any import (
    DateRange,
    DateTimeTZRange,
    NumericRange,
)

from tests.zoo.populate import EPOCH, ROWS, SCRIPTS
from tests.zoo_postgresql.models import Booking, Lists, Spans

STATEMENTS = (
    (
        "INSERT INTO annex.thing (mood, price, place, reach, name, bits, money, net, mac)"
        " SELECT (enum_range(NULL::annex.mood))[1 + n % 4], 0.01 + n,"
        " (n, -n, 'a,\"b')::annex.point3,"
        " annex.span(n, n + 0.5), 'thing ' || n, (n % 8)::bit(3), n::text::money,"
        " ('10.0.0.' || n % 256)::inet, '08:00:2b:01:02:03'"
        " FROM generate_series(1, {rows}) AS n"
    ),
    # A row whose key was given, so that key and sequence are apart.
    "INSERT INTO annex.thing (id, name) OVERRIDING SYSTEM VALUE VALUES (5, 'given')",
    'INSERT INTO "Annex One"."T able" SELECT n, md5(n::text), 5 FROM generate_series(1, 50) AS n',
    "INSERT INTO annex.nothing DEFAULT VALUES",
    "INSERT INTO annex.nothing DEFAULT VALUES",
    (
        "INSERT INTO annex.keyless VALUES"
        " ('infinity', 'infinity', '1 mon -1 day 0.000001 s', '24:00:00+13:59:59', 'NaN', 'NaN',"
        "  'Infinity', '', '{{\"b\": 1,  \"a\": 1, \"a\": 2}}', 'null'),"
        " ('-infinity', '-infinity', '-178000000 years', '00:00-12', '-0.00000000000000000001',"
        "  '1e-45', '-0', '\\x00ff', 'null', '{{\"n\": 1e300, \"s\": \"\\u00f1\"}}'),"
        " ('4713-01-01 00:00:00+00 BC', '5874897-12-31', '0', '12:00:00.123456+00', 1e1000,"
        "  '3.4028235e38', '5e-324', NULL, NULL, NULL)"
    ),
    "INSERT INTO annex.keyless (number) SELECT 1.5 FROM generate_series(1, 3)",
    "INSERT INTO annex.scratch SELECT generate_series(1, 20)",
    "INSERT INTO annex.parent SELECT generate_series(1, 20)",
    "INSERT INTO annex.child SELECT n, n FROM generate_series(1, 20) AS n",
    (
        "INSERT INTO annex.event SELECT date '2023-06-01' + n, (ARRAY['eu', 'us'])[1 + n % 2],"
        " md5(n::text) FROM generate_series(1, {rows} * 3) AS n"
    ),
    (
        "INSERT INTO annex.secret (owner, value) SELECT 'nobody', md5(n::text)"
        " FROM generate_series(1, 20) AS n"
    ),
    "SELECT nextval('annex.ticket') FROM generate_series(1, 3)",
    "REFRESH MATERIALIZED VIEW annex.summary",
    (
        "SELECT lo_from_bytea(0, decode(repeat(md5(n::text), 3000 * n), 'hex'))"
        " FROM generate_series(0, 3) AS n"
    ),
    "SELECT lo_from_bytea(4711000, '')",
    "COMMENT ON LARGE OBJECT 4711000 IS 'empty'",
    "GRANT SELECT ON LARGE OBJECT 4711000 TO PUBLIC",
)


def populate_postgresql(using: str, seed: int) -> None:
    """Fill the models of this app and the tables that its second migration made by SQL."""
    chance = random.Random(seed)
    with transaction.atomic(using=using):
        _models(using, chance)
        with connections[using].cursor() as cursor:
            for statement in STATEMENTS:
                cursor.execute(statement.format(rows=ROWS))


def _models(using: str, chance: random.Random) -> None:
    lists = [
        Lists(numbers=[], words=[]),
        Lists(numbers=[2**63 - 1, -(2**63)], words=["", None, "NULL", '{"a", b}', "\\"]),
        Lists(words=list(SCRIPTS), grid=[[Decimal("1.50"), Decimal("-2")], [Decimal(0)] * 2]),
    ]
    lists += [Lists(words=[str(n)], numbers=list(range(n % 9))) for n in range(ROWS)]
    Lists.objects.using(using).bulk_create(lists)
    spans = [
        Spans(),
        Spans(whole=NumericRange(empty=True), days=DateRange(None, None)),
        Spans(exact=NumericRange(Decimal("0.10"), Decimal("2.5"), "(]")),
        Spans(days=DateRange(date(2024, 2, 29), None), big=NumericRange(-(2**63), 2**63 - 1)),
    ]
    spans += [
        Spans(whole=NumericRange(n, n + chance.randint(1, 9)), moments=_hour(n))
        for n in range(ROWS)
    ]
    Spans.objects.using(using).bulk_create(spans)
    Booking.objects.using(using).bulk_create(
        [Booking(room=n % 3, during=_hour(n), place=n) for n in range(ROWS)]
    )


def _hour(number: int) -> DateTimeTZRange:
    start: datetime = EPOCH + timedelta(hours=number)
    return DateTimeTZRange(start, start + timedelta(hours=1), "[)")
