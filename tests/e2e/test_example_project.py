"""The example's own compose file, SQL, settings and scripts, on a server of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from tests import services
from tests.e2e.project import REPOSITORY
from tests.e2e.test_services import needs_private_server
from tests.services import PostgreSQLServer

EXAMPLE = REPOSITORY / "example_project"
COMPOSE: dict[str, Any] = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
ROLES = ("shop", "shop_backup", "shop_restore")
# What an administrator of the shop sees, in a process of the site's.
HEALTH = """
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
client = Client(SERVER_NAME="127.0.0.1")
client.force_login(get_user_model().objects.create_superuser("admin"))
for name in ("backuphealth", "backup"):
    page = client.get(reverse(f"admin:mipyme_backup_{name}_changelist"), secure=True)
    print(page.status_code)
"""
# Writes down what it is asked for, and answers that the shop and its scheduler run.
DOCKER = """#!/bin/sh
echo "$*" >>"$DOCKER_CALLS"
case "$*" in *" ps "*) echo web; echo scheduler;; esac
"""


@dataclass
class Host:
    """A host that `deploy.sh` has made secrets on, and a server in the place of Compose's."""

    root: Path
    server: PostgreSQLServer

    @property
    def secrets(self) -> Path:
        return self.root / "example_project" / "secrets"

    def environment(self, service: str) -> dict[str, str]:
        """Return what the service's processes see: of the secrets, only those that it is given."""
        entry = SERVICES[service]
        given = self.root / "run" / service
        given.mkdir(parents=True, exist_ok=True)
        for name in entry["secrets"]:
            shutil.copy(self.secrets / name, given / name)
        variables = {
            name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
            .replace("/run/secrets", str(given))
            .replace("db:5432", f"{self.server.host}:{self.server.port}")
            for name, value in entry["environment"].items()
        }
        return {
            "PATH": f"{self.server.bin_dir}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "DJANGO_LANGUAGE_CODE": "en",
            **{
                name: str(self.root / "srv" / name.lower())
                for name in ("MEDIA_ROOT", "STATIC_ROOT", "BACKUP_DIR", "STATE_DIR")
            },
            **variables,
        }

    def manage(self, service: str, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(EXAMPLE / "manage.py"), *args],
            cwd=EXAMPLE,
            env=self.environment(service),
            capture_output=True,
            text=True,
            timeout=240,
        )

    def done(self, service: str, *args: str) -> str:
        result = self.manage(service, *args)
        assert result.returncode == 0, f"{args}: {result.stdout[-3000:]}{result.stderr[-3000:]}"
        return result.stdout

    def make_roles(self) -> None:
        """Run the command of the service `roles`, with the file that it is given."""
        entry = SERVICES["roles"]
        script = entry["command"][-1].replace("$$", "$")
        (volume,) = entry["volumes"]
        local, inside = volume.removesuffix(":ro").split(":")
        assert inside in script
        subprocess.run(
            ["sh", "-c", script.replace(inside, str(EXAMPLE / local))],
            env={
                **self.environment("roles"),
                "PGHOST": self.server.host,
                "PGPORT": str(self.server.port),
            },
            check=True,
            timeout=60,
        )

    def connect(self, role: str, database: str = "shop") -> psycopg.Connection[Any]:
        secret = {"shop": "database_password"}.get(role, f"database_{role[5:]}_password")
        return psycopg.connect(
            host=self.server.host,
            port=self.server.port,
            user=role,
            password=(self.secrets / secret).read_text().strip(),
            dbname=database,
            autocommit=True,
        )


def deploy(root: Path) -> list[str]:
    """Run the example's deploy.sh below `root`; return what it asked Docker for."""
    shutil.copytree(
        EXAMPLE,
        root / "example_project",
        ignore=shutil.ignore_patterns("secrets", "*.passphrase", ".env", "*.sqlite3*"),
    )
    (root / "bin").mkdir()
    (root / "bin" / "docker").write_text(DOCKER)
    (root / "bin" / "docker").chmod(0o700)
    calls = root / "calls"
    subprocess.run(
        ["bash", str(root / "example_project" / "scripts" / "deploy.sh"), "a label"],
        env={
            "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "DOCKER_CALLS": str(calls),
            "SHOP_UID": str(os.getuid()),
        },
        check=True,
        capture_output=True,
        timeout=60,
    )
    return calls.read_text().splitlines()


@pytest.fixture
def host(postgresql_server: PostgreSQLServer, workdir: Path) -> Iterator[Host]:
    """A host with its secrets and roles; the server is its own, for it takes rights from all."""
    deploy(workdir)
    with services.postgresql(postgresql_server.major) as server:
        made = Host(workdir, server)
        # What the database's image does with it.
        password = (made.secrets / "database_admin_password").read_text().strip()
        server.execute(f"ALTER ROLE postgres PASSWORD '{password}'")
        made.server = replace(server, password=password)
        made.make_roles()
        yield made


def test_deploying_backs_up_before_it_migrates(workdir: Path) -> None:
    calls = deploy(workdir)

    def turn(words: str) -> int:
        (number,) = (number for number, call in enumerate(calls) if words in call)
        return number

    order = (
        "up --detach --wait db",
        "--no-TTY roles",
        "stop web scheduler",
        "scheduler python manage.py backup --kind pre_deploy --label a label",
        "web python manage.py migrate",
        "web python manage.py collectstatic",
    )
    assert sorted(order, key=turn) == [*order]
    secrets = workdir / "example_project" / "secrets"
    assert {path.name for path in secrets.iterdir()} == {*COMPOSE["secrets"]}
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o600}


def test_the_site_is_given_no_secret_of_the_backups_and_no_port_to_the_world() -> None:
    assert sorted(SERVICES["web"]["secrets"]) == ["database_password", "django_secret_key"]
    assert "postgres" in SERVICES["db"]["image"] and "ports" not in SERVICES["db"]
    assert "ports" not in SERVICES["web"]
    assert [port.rsplit(":", 2)[0][:10] for port in SERVICES["proxy"]["ports"]] == ["127.0.0.1:"]


@needs_private_server
@pytest.mark.rare
def test_a_role_each_for_site_backups_and_restores(host: Host) -> None:
    host.done("web", "migrate", "--verbosity=0")
    host.done("web", "seed_shop")
    before = json.loads(host.done("web", "fingerprint_shop"))
    host.done("scheduler", "backup")
    host.make_roles()  # a second time

    assert writable_by(host, "shop_backup") == []
    assert owned_by(host, "shop_backup", "shop_restore") == []
    with host.connect("shop") as site:
        site.execute("DROP TABLE shop_orderline")
    host.done("scheduler", "restore", "--latest", "--no-input")

    assert json.loads(host.done("web", "fingerprint_shop")) == before
    host.done("web", "check_shop")
    host.done("scheduler", "backup", "--kind=pre_deploy")
    # Without the passphrase, the site shows its backups all the same.
    assert host.done("web", "shell", "--no-imports", "-c", HEALTH).split() == ["200", "200"]
    host.done("scheduler", "verify_backups", "--latest", "--level=content")
    host.done("scheduler", "restore_drill")
    host.done("scheduler", "restore", "--undo", "--no-input")
    assert writable_by(host, "shop_backup") == []
    assert owned_by(host, "shop_backup", "shop_restore") == []


@needs_private_server
def test_the_sites_role_reads_no_other_database_and_makes_none(host: Host) -> None:
    host.server.execute("CREATE DATABASE neighbour")
    host.server.execute("CREATE TABLE private AS SELECT 1 AS id", "neighbour")

    for name in ("postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            host.connect("shop", name)
    with host.connect("shop", "neighbour") as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM private")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE DATABASE mine")
    attributes = "rolsuper OR rolcreaterole OR rolreplication"
    chosen = f"SELECT rolname FROM pg_roles WHERE rolname = ANY ('{{{','.join(ROLES)}}}')"
    assert host.server.execute(f"{chosen} AND ({attributes})") == []
    assert host.server.execute(f"{chosen} AND rolcreatedb") == [("shop_restore",)]
    assert host.server.execute(f"{chosen} AND rolbypassrls") == [("shop_backup",)]


@needs_private_server
def test_the_check_of_a_deployment_finds_the_site_secure(host: Host) -> None:
    host.done("web", "migrate", "--verbosity=0")
    Path(host.environment("scheduler")["MEDIA_ROOT"]).mkdir(parents=True)

    for service in ("web", "scheduler"):
        checked = host.manage(service, "check", "--deploy").stderr
        assert "security." not in checked
    found = set(re.findall(r"mipyme_backup\.\w+", checked))
    assert found == {"mipyme_backup.W003"}  # who is told is up to the shop


def test_pages_are_sent_over_tls_alone_except_on_a_trial(workdir: Path) -> None:
    ask = (
        "import django; django.setup(); from django.conf import settings; "
        "from django.test import Client; page = Client(SERVER_NAME='localhost').get(*ARGS); "
        "print(page.status_code, page.headers.get('Location'), settings.SESSION_COOKIE_SECURE, "
        "settings.CSRF_COOKIE_SECURE)"
    )

    def answer(**variables: str) -> str:
        forwarded = variables.pop("FORWARDED", "")
        arguments = ("/admin/login/", None, False, False)
        call = f"*{arguments!r}, HTTP_X_FORWARDED_PROTO={forwarded!r}"
        return subprocess.run(
            [sys.executable, "-c", ask.replace("*ARGS", call)],
            cwd=EXAMPLE,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{EXAMPLE}{os.pathsep}{REPOSITORY}",
                "DJANGO_SETTINGS_MODULE": "config.settings",
                "DATABASE_URL": f"sqlite:///{workdir}/shop.sqlite3",
                **variables,
            },
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout.strip()

    assert answer() == "301 https://localhost/admin/login/ True True"
    assert answer(FORWARDED="https") == "200 None True True"
    assert answer(DJANGO_HTTPS="0") == "200 None False False"
    assert answer(DJANGO_DEBUG="1") == "200 None False False"


def writable_by(host: Host, role: str) -> list[str]:
    """Return which tables `role` can in fact change, and what else it can make."""
    found = []
    with host.connect(role) as connection:
        tables = connection.execute(
            "SELECT quote_ident(relname), (SELECT quote_ident(attname) FROM pg_attribute"
            " WHERE attrelid = c.oid AND attnum = 1) FROM pg_class c WHERE relkind = 'r'"
            " AND relnamespace = 'public'::regnamespace ORDER BY 1"
        ).fetchall()
        assert len(tables) > 15
        for table, column in tables:
            for statement in (
                f"INSERT INTO {table} DEFAULT VALUES",
                f"UPDATE {table} SET {column} = {column}",
                f"DELETE FROM {table}",
                f"TRUNCATE {table} CASCADE",
                f"ALTER TABLE {table} ADD COLUMN more int",
            ):
                found += refused(connection, statement)
        for statement in ("CREATE TABLE mine (id int)", "CREATE DATABASE mine", "SET ROLE shop"):
            found += refused(connection, statement)
    return found


def refused(connection: psycopg.Connection[Any], statement: str) -> list[str]:
    try:
        connection.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return []
    return [statement]


def owned_by(host: Host, *roles: str) -> list[Any]:
    names = ", ".join(f"'{role}'::regrole" for role in roles)
    return host.server.execute(f"SELECT relname FROM pg_class WHERE relowner IN ({names})", "shop")
