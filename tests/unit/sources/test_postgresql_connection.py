from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipyme_backup.errors import ConfigurationError
from mipyme_backup.sources.postgresql.connection import (
    client_environment,
    conninfo,
    identifier,
    identity,
    literal,
    own_settings,
    passfile_line,
    session_settings,
)

FULL: dict[str, Any] = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "shop",
    "USER": "app",
    "PASSWORD": "canary",
    "HOST": "db.example",
    "PORT": 5433,
    "OPTIONS": {
        "sslmode": "verify-full",
        "sslrootcert": "/etc/ca.pem",
        "sslpassword": "canary",
        "passfile": "/etc/pgpass",
        "pool": {"min_size": 2},
        "isolation_level": 3,
        "assume_role": "owner",
        "connect_timeout": 5,
    },
}


def test_conninfo_holds_what_reaches_the_server_and_no_secret() -> None:
    assert conninfo(FULL, name="shop") == (
        "connect_timeout='5' dbname='shop' host='db.example' port='5433' "
        "sslmode='verify-full' sslrootcert='/etc/ca.pem' user='app'"
    )


def test_conninfo_keeps_a_passfile_where_there_is_no_password() -> None:
    settings = {"NAME": "shop", "PASSWORD": "", "OPTIONS": {"passfile": "/p", "service": "s"}}
    assert conninfo(settings, name="shop") == "dbname='shop' passfile='/p' service='s'"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a b", "dbname='a b'"),
        ("it's", r"dbname='it\'s'"),
        ("back\\slash", r"dbname='back\\slash'"),
        ("postgresql://evil/x?host=h", "dbname='postgresql://evil/x?host=h'"),
        ("-o host=evil", "dbname='-o host=evil'"),
    ],
)
def test_conninfo_quotes_any_name(name: str, written: str) -> None:
    assert conninfo({}, name=name) == written


def test_the_environment_passes_on_what_libpq_reads_but_no_password() -> None:
    environ = {"PGHOST": "h", "PGPASSWORD": "canary", "PGSSLMODE": "", "SECRET_KEY": "canary"}
    assert client_environment("run", environ) == {"PGHOST": "h", "PGAPPNAME": "run"}


def test_a_passfile_line_escapes_what_pgpass_needs() -> None:
    assert passfile_line("a:b\\c") == b"*:*:*:*:a\\:b\\\\c\n"


@pytest.mark.parametrize("password", ["a\nb", "a\rb", "a\0b"])
def test_a_password_that_pgpass_cannot_hold_is_refused_without_showing_it(password: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        passfile_line(password)
    assert password not in str(caught.value)


def test_own_settings_leave_pool_and_isolation_level_and_do_not_touch_the_original() -> None:
    own = own_settings(FULL, application="run", name="postgres")
    assert own["NAME"] == "postgres"
    assert own["OPTIONS"]["application_name"] == "run"
    assert not {"pool", "isolation_level"} & own["OPTIONS"].keys()
    assert own["DISABLE_SERVER_SIDE_CURSORS"] is False
    assert FULL["NAME"] == "shop"
    assert "pool" in FULL["OPTIONS"]


def test_no_timeout_but_that_for_locks_is_left_on() -> None:
    assert session_settings(17, 0.25) == {
        "statement_timeout": "0",
        "lock_timeout": "250",
        "idle_in_transaction_session_timeout": "0",
        "idle_session_timeout": "0",
        "row_security": "off",
        "default_transaction_read_only": "off",
        "default_transaction_isolation": "'read committed'",
        "quote_all_identifiers": "off",
        "DateStyle": "ISO",
        "IntervalStyle": "postgres",
        "extra_float_digits": "3",
        "transaction_timeout": "0",
    }
    assert "transaction_timeout" not in session_settings(16, 0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"NAME": "a"}, ("localhost", "5432", "a")),
        ({"NAME": "a", "HOST": "127.0.0.1", "PORT": 5432}, ("localhost", "5432", "a")),
        ({"NAME": "a", "HOST": "DB", "PORT": "1"}, ("db", "1", "a")),
        ({"NAME": "a", "HOST": "/run/pg"}, ("/run/pg", "5432", "a")),
        ({"NAME": "", "OPTIONS": {"service": "s"}}, ("s", "")),
    ],
)
def test_identity_tells_databases_apart(
    settings: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert identity(settings) == expected


@given(st.text(alphabet=st.characters(exclude_characters="\0")))
def test_quoting_leaves_no_way_out(text: str) -> None:
    assert identifier(text)[1:-1].replace('""', "").count('"') == 0
    inner = literal(text).removeprefix("E")[1:-1]
    assert inner.replace("''", "").count("'") == 0
    assert inner.replace("\\\\", "").count("\\") == 0
