"""What pg_dump and pg_restore are told, which of them is run, and the SQL around a restore."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipyme_backup.errors import PreflightError
from mipyme_backup.sources.postgresql.archive import Contents, Entry
from mipyme_backup.sources.postgresql.dump import dump_arguments
from mipyme_backup.sources.postgresql.load import (
    closing_statements,
    create_statement,
    opening_statements,
    property_statements,
    restore_arguments,
    restore_flags,
    setting_statement,
)
from mipyme_backup.sources.postgresql.replacing import (
    opening,
    psql_arguments,
    script_arguments,
)
from mipyme_backup.sources.postgresql.selection import select
from mipyme_backup.sources.postgresql.server import Rights, beside
from mipyme_backup.sources.postgresql.tools import candidates, find_reader, parse_version

SETTINGS = {
    "NAME": "shop",
    "USER": "app",
    "PASSWORD": "canary",
    "HOST": "db",
    "PORT": "5432",
    "OPTIONS": {"assume_role": "owner"},
}


def rights(*, superuser: bool = False) -> Rights:
    return Rights(
        login="app",
        role="app",
        superuser=superuser,
        createdb=True,
        roles=frozenset({"app", "reader"}),
        assumable=frozenset({"app"}),
        settable=frozenset({"work_mem", "search_path"}),
        available=frozenset({"hstore", "vector"}),
        trusted=frozenset({"hstore"}),
        tablespaces=frozenset({"pg_default"}),
    )


def entry(kind: str, tag: str = "", **given: str) -> Entry:
    return Entry(
        id=1,
        kind=kind,
        schema=given.get("schema", "public"),
        tag=tag,
        owner=given.get("owner", "app"),
        definition=given.get("definition", ""),
        tablespace=given.get("tablespace", ""),
        has_data=False,
    )


def test_dump_arguments_are_exactly_these() -> None:
    assert dump_arguments(
        Path("/bin/pg_dump"),
        SETTINGS,
        name="shop",
        snapshot="0003-1",
        lock_timeout=2.5,
        without_rows=[("public", 'o"dd*'), ("a.b", "c")],
    ) == [
        "/bin/pg_dump",
        "--format=custom",
        "--compress=0",
        "--no-password",
        "--snapshot=0003-1",
        "--lock-wait-timeout=2500",
        "--role=owner",
        '--exclude-table-data="a.b"."c"',
        '--exclude-table-data="public"."o""dd*"',
        "--dbname=dbname='shop' host='db' port='5432' user='app'",
    ]


def test_restore_arguments_are_exactly_these() -> None:
    assert restore_arguments(
        Path("/bin/pg_restore"),
        SETTINGS,
        name="side",
        role="owner",
        use_list=Path("/dev/fd/7"),
        flags=["--no-owner"],
    ) == [
        "/bin/pg_restore",
        "--format=custom",
        "--exit-on-error",
        "--no-password",
        "--no-owner",
        "--use-list=/dev/fd/7",
        "--role=owner",
        "--dbname=dbname='side' host='db' port='5432' user='app'",
    ]


def test_a_superuser_with_all_roles_restores_everything_as_it_was() -> None:
    assert restore_flags(Contents(), rights(superuser=True), ["app", "reader"]) == []


def test_a_plain_owner_restores_no_owners_but_privileges() -> None:
    assert restore_flags(Contents(), rights(), ["app", "reader"]) == ["--no-owner"]


def test_missing_roles_and_tablespaces_are_not_tried() -> None:
    contents = Contents(entries=(entry("TABLE", tablespace="fast"),))
    assert restore_flags(contents, rights(superuser=True), ["gone"]) == [
        "--no-owner",
        "--no-privileges",
        "--no-tablespaces",
    ]


@pytest.mark.parametrize(
    ("refused", "accepted"),
    [
        (entry("EXTENSION", "vector"), entry("EXTENSION", "hstore")),
        (entry("EXTENSION", "installed"), entry("TABLE", "installed")),
        (entry("COMMENT", 'EXTENSION "vector"'), entry("COMMENT", "EXTENSION hstore")),
        (entry("COMMENT", "EXTENSION plpgsql"), entry("COMMENT", "TABLE plpgsql")),
        (entry("COMMENT", "EVENT TRIGGER e"), entry("COMMENT", "COLUMN e.f")),
        (entry("EVENT TRIGGER", "e"), entry("TRIGGER", "e")),
        (entry("ACL", schema="pg_catalog"), entry("ACL")),
        (entry("ACL", definition="SET SESSION AUTHORIZATION x;"), entry("ACL", definition="GRANT")),
        (entry("DEFAULT ACL", owner="other"), entry("DEFAULT ACL", owner="app")),
        (entry("PUBLICATION", definition="FOR ALL TABLES"), entry("PUBLICATION", definition="x")),
        (entry("SUBSCRIPTION"), entry("SCHEMA")),
    ],
)
def test_a_plain_owner_is_not_given_what_it_may_not_make(refused: Entry, accepted: Entry) -> None:
    installed = frozenset({"installed"})
    assert select([refused, accepted], rights(), installed).kept == (accepted,)


def test_a_superuser_is_spared_only_extensions_that_the_server_lacks_or_has_already() -> None:
    chosen = select(
        [
            entry("EXTENSION", "lacking"),
            entry("COMMENT", "EXTENSION lacking"),
            entry("EXTENSION", "vector"),
            entry("COMMENT", "EXTENSION vector"),
            entry("EVENT TRIGGER", "e"),
            entry("ACL", schema="pg_catalog"),
        ],
        rights(superuser=True),
        frozenset(),
    )
    assert [e.tag for e in chosen.left_out] == ["lacking", "EXTENSION lacking"]


def test_a_database_is_created_like_the_one_described() -> None:
    properties = {
        "encoding": "UTF8",
        "locale_provider": "icu",
        "collate": "C",
        "ctype": "C",
        "icu_locale": "es-ES",
    }
    assert create_statement(
        'a"b', properties, owner="app", tablespace="fast", template="template0"
    ) == (
        'CREATE DATABASE "a""b" WITH OWNER = "app" TEMPLATE = "template0" ENCODING = \'UTF8\' '
        "LOCALE_PROVIDER = \"icu\" LC_COLLATE = 'C' LC_CTYPE = 'C' ICU_LOCALE = 'es-ES' "
        'TABLESPACE = "fast"'
    )


@pytest.mark.parametrize(
    ("parameter", "value", "written"),
    [
        ("work_mem", "5MB", "\"work_mem\" TO '5MB'"),
        ("app.key", "it's; DROP", "\"app\".\"key\" TO 'it''s; DROP'"),
        ("search_path", '"$user", public', "\"search_path\" TO '$user', 'public'"),
        ("search_path", '"a""b, c"', '"search_path" TO \'a"b, c\''),
        ("search_path", "", "\"search_path\" TO ''"),
    ],
)
def test_settings_are_written_as_the_server_reads_them(
    parameter: str, value: str, written: str
) -> None:
    assert setting_statement("d", "", parameter, value) == f'ALTER DATABASE "d" SET {written}'
    assert setting_statement("d", "r", parameter, value) == (
        f'ALTER ROLE "r" IN DATABASE "d" SET {written}'
    )


def test_settings_are_split_by_who_may_make_them() -> None:
    settings = [["", "work_mem=1MB"], ["reader", "work_mem=1MB"], ["", "log_statement=all"]]
    ours, theirs = property_statements("d", {"settings": settings, "comment": "x"}, rights())
    assert ours == [
        'ALTER DATABASE "d" SET "work_mem" TO \'1MB\'',
        "COMMENT ON DATABASE \"d\" IS 'x'",
    ]
    assert len(theirs) == 2


def test_a_database_that_is_not_live_is_closed_to_all_but_us() -> None:
    assert closing_statements("d", "app", "app") == ['REVOKE ALL ON DATABASE "d" FROM PUBLIC']
    assert closing_statements("d", "owner", "app") == [
        'REVOKE ALL ON DATABASE "d" FROM PUBLIC',
        'GRANT CONNECT ON DATABASE "d" TO "app"',
    ]


def test_doors_open_as_they_were() -> None:
    acl = [["", "CONNECT", False], ["reader", "CONNECT", True], ["gone", "CREATE", False]]
    properties = {"acl": acl, "connection_limit": 5}
    assert opening_statements("d", properties, owner="app", rights=rights()) == [
        'GRANT CONNECT ON DATABASE "d" TO PUBLIC',
        'GRANT CONNECT ON DATABASE "d" TO "reader" WITH GRANT OPTION',
        'ALTER DATABASE "d" CONNECTION LIMIT 5',
    ]
    assert opening_statements("d", {"acl": None}, owner="other", rights=rights()) == [
        'REVOKE ALL ON DATABASE "d" FROM "app"',
        'GRANT CONNECT, TEMPORARY ON DATABASE "d" TO PUBLIC',
        'ALTER DATABASE "d" CONNECTION LIMIT -1',
    ]


@given(st.text(min_size=1, max_size=63))
def test_a_name_beside_fits_and_keeps_the_id(name: str) -> None:
    made = beside(name.encode(errors="ignore").decode(), "restoring", "r0123456789")
    assert len(made.encode()) <= 63
    assert made.endswith("__restoring_r0123456789")


@pytest.mark.parametrize("letter", ["x", "ñ", "€", "🦆"])
@pytest.mark.parametrize("word", ["restoring", "before", "swapping", "drill"])
def test_names_that_begin_alike_have_nothing_beside_them_in_common(letter: str, word: str) -> None:
    first, second = (("a" + letter * 62).encode()[:60].decode(errors="ignore") + e for e in "12")
    made = {beside(name, word, "0123456789abcdef") for name in (first, second, first + second)}
    assert len(made) == 3
    assert all(len(name.encode()) <= 63 for name in made)


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("pg_dump (PostgreSQL) 16.14\n", "16.14"),
        ("pg_dump (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n", "15.20"),
        ("pg_dump (PostgreSQL) 19beta1\n", "19beta1"),
        ("mysqldump 8\n", None),
    ],
)
def test_versions_are_read_from_what_tools_say(output: str, version: str | None) -> None:
    assert parse_version(output) == version


def test_debian_wrapper_is_no_candidate_and_links_are_asked_once(workdir: Path) -> None:
    for folder in ("real", "linked", "wrapped", "given"):
        (workdir / folder).mkdir()
    for path in ("real/pg_dump", "wrapped/pg_wrapper", "given/pg_dump"):
        (workdir / path).touch(mode=0o700)
    (workdir / "linked/pg_dump").symlink_to(workdir / "real/pg_dump")
    (workdir / "wrapped/pg_dump").symlink_to(workdir / "wrapped/pg_wrapper")
    search_path = f"{workdir}/wrapped:{workdir}/linked:{workdir}/real"

    found = list(candidates("pg_dump", 99, workdir / "given", search_path))

    assert found[:2] == [workdir / "given/pg_dump", workdir / "linked/pg_dump"]
    assert workdir / "real/pg_dump" not in found


def test_dump_newer_than_every_pg_restore_here_names_those_that_there_are() -> None:
    with pytest.raises(PreflightError, match=r"PostgreSQL 90.*found: ") as caught:
        find_reader(90)

    assert "version 90 or newer" in str(caught.value.hint)


def test_the_script_and_who_runs_it_are_told_exactly_this() -> None:
    flags = ["--no-owner"]

    assert script_arguments(Path("/b/pg_restore"), use_list=Path("/dev/fd/3"), flags=flags) == [
        *("/b/pg_restore", "--format=custom", "--single-transaction", "--file=-"),
        *("--no-owner", "--use-list=/dev/fd/3"),
    ]
    assert psql_arguments(Path("/b/psql"), "dbname=shop") == [
        *("/b/psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"),
        *("--output=/dev/null", "--dbname=dbname=shop"),
    ]


def test_what_precedes_the_script_quotes_what_it_is_given() -> None:
    text = opening(role='o"w', rows={"public.it's": 7})

    assert text.startswith('SET SESSION ROLE "o""w";\n')
    assert "VALUES ('public.it''s', 7);" in text
    assert text.index("BEGIN;") < text.index("DROP ") < text.index("VALUES (NULL, NULL);")


def test_schemas_that_stay_are_neither_made_nor_granted_nor_commented() -> None:
    entries = [
        entry("SCHEMA", "public"),
        entry("ACL", "SCHEMA public"),
        entry("COMMENT", 'SCHEMA "Odd one"'),
        entry("SCHEMA", "other"),
        entry("ACL", "TABLE public"),
    ]
    kept = select(entries, rights(), frozenset(), frozenset({"public", "Odd one"})).kept

    assert kept == (entries[3], entries[4])
