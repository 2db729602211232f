"""The recovery sheet: whole in both languages, true in each command, and without a secret."""

from __future__ import annotations

import io
import json
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command, get_commands, load_command_class
from markdown_it import MarkdownIt

from mipyme_backup import api, recover
from mipyme_backup.errors import UsageError
from mipyme_backup.printable import ESCAPED
from tests.e2e.project import postgresql_project
from tests.integration.conftest import LOCAL
from tests.keyrings import Ring, keyring, public_half
from tests.services import PostgreSQLServer

LANGUAGES = ("en", "es")
CANARY = f"canary{secrets.token_hex(8)}"
STORAGE = "mipyme_backup.destinations.StorageDestination"


@pytest.fixture
def host(gpg: Path) -> Iterator[Ring]:
    """The keyring of a host that encrypts to a public key."""
    with keyring("backup") as ring, public_half(ring) as half:
        yield half


@pytest.fixture
def shop(backups: Path, settings: Any) -> Path:
    """The project with four kinds of destinations and canaries in all that is secret."""
    nobody = _free_port()
    given = settings.MIPYME_BACKUP
    folder = backups.parent
    for name in ("old", "signing"):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(f"{CANARY}{name}\n")
    given["ENCRYPTION"]["OPTIONS"]["passphrase_file"].write_text(f"{CANARY}passphrase\n")
    settings.STORAGES = {
        **settings.STORAGES,
        "s3": {
            "BACKEND": "storages.backends.s3.S3Storage",
            "OPTIONS": {
                "bucket_name": "shop-backups",
                "location": "shop",
                "endpoint_url": f"http://user:{CANARY}@127.0.0.1:{nobody}",
                "region_name": "eu-central-003",
                "access_key": CANARY,
                "secret_key": CANARY,
            },
        },
        "sftp": {
            "BACKEND": "storages.backends.sftpstorage.SFTPStorage",
            "OPTIONS": {
                "host": "127.0.0.1",
                "root_path": "/srv/shop",
                "params": {"port": nobody, "username": "keeper", "password": CANARY},
            },
        },
    }
    settings.MIPYME_BACKUP = {
        **given,
        "ENCRYPTION": {
            **given["ENCRYPTION"],
            "OPTIONS": {
                **given["ENCRYPTION"]["OPTIONS"],
                "old_passphrase_files": [folder / "old"],
            },
        },
        "SIGNING_KEY_FILE": folder / "signing",
        "STATE_DIR": folder / "state",
        "SOURCES": {
            "database": {
                "BACKEND": "mipyme_backup.sources.DatabaseSource",
                "OPTIONS": {"connections": {"default": {"USER": "clerk", "PASSWORD": CANARY}}},
            },
            "media": {"BACKEND": "mipyme_backup.sources.MediaSource"},
        },
        "DESTINATIONS": {
            **given["DESTINATIONS"],
            "cloud": {"BACKEND": STORAGE, "OPTIONS": {"storage": "s3"}},
            "vault": {"BACKEND": STORAGE, "OPTIONS": {"storage": "sftp"}},
            "nas": {
                "BACKEND": "mipyme_backup.destinations.RsyncDestination",
                "OPTIONS": {
                    "host": "127.0.0.1",
                    "port": nobody,
                    "user": "keeper",
                    "path": "/srv/nas",
                    "known_hosts_file": "/etc/mipyme/known_hosts",
                },
            },
        },
        "RPO": timedelta(hours=6),
        "RTO": timedelta(minutes=45),
        "POLICY_REVIEW": date(2025, 4, 3),
    }
    return backups


def sheet(language: str) -> str:
    return api.recovery_sheet(language=language, timeout=30)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def shape(text: str) -> dict[str, object]:
    """What two sheets that say the same have in common."""
    lines = text.splitlines()
    return {
        "headings": [re.match("#+", line)[0] for line in lines if line.startswith("#")],  # type: ignore[index]
        "rows": [line.count("|") for line in lines if line.startswith("|")],
        "boxes": sum(line.strip().startswith("- [ ]") for line in lines),
        "steps": [line.split(".")[0] for line in lines if re.match(r"\d+\. ", line)],
        "code": re.findall(r"^ *```.*$", text, re.MULTILINE),
        "commands": sum("$ " in line for line in lines),
    }


def commands(text: str, program: str) -> list[list[str]]:
    """Return the arguments of each line that runs the program."""
    found = re.findall(rf"{re.escape(program)} ([^`\n]+)", text)
    return [shlex.split(line) for line in found]


@pytest.mark.parametrize("language", LANGUAGES)
def test_everything_is_named_and_nothing_secret(shop: Path, language: str) -> None:
    made = api.backup(destinations=["local"])

    text = sheet(language)

    assert CANARY not in text
    for expected in (
        f"| local | `{shop}` |",
        "s3://shop-backups/shop/ (endpoint_url=http://127.0.0.1:",
        "region_name=eu-central-003",
        "sftp://keeper@127.0.0.1:",
        "rsync keeper@127.0.0.1:/srv/nas/",
        "known_hosts_file=/etc/mipyme/known_hosts",
        made.manifest.name,
        f"**{made.manifest.key_fingerprint}**",
        f"`{shop.parent / 'passphrase'}`",
        f"`{shop.parent / 'old'}`",
        f"`{shop.parent / 'signing'}`",
        f"**{socket.gethostname()}**",
        "`clerk`",
        f"`{shop.parent / 'media'}`",
        "| 6 h |",
        "| 45 min |",
        "2025-04-03",
    ):
        assert expected in text, expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_media_on_a_remote_storage_is_told_by_its_alias(
    backups: Path, settings: Any, language: str
) -> None:
    remote = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    settings.STORAGES = {**settings.STORAGES, "default": remote}

    assert "`default`" in sheet(language)


def test_both_languages_say_the_same(shop: Path) -> None:
    api.backup(destinations=["local"])

    english, spanish = (sheet(language) for language in LANGUAGES)

    assert shape(english) == shape(spanish)
    assert english.startswith("# Recovery sheet: ") and spanish.startswith(
        "# Hoja de recuperación: "
    )
    assert len(shape(english)["headings"]) == 9  # type: ignore[arg-type]


def test_both_say_the_same_without_backup_key_or_copy_elsewhere(
    backups: Path, settings: Any
) -> None:
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "ENCRYPTION": None}

    english, spanish = (sheet(language) for language in LANGUAGES)

    assert shape(english) == shape(spanish)
    assert "**Every copy is on this server." in english
    assert "**Todas las copias están en este servidor." in spanish
    assert "**The backups are not encrypted" in english
    assert "--passphrase-file" not in english and "--unauthenticated" in spanish


def test_public_keys_are_told_with_where_the_secret_one_goes(
    backups: Path, settings: Any, host: Ring
) -> None:
    (backups.parent / "passphrase").rename(backups.parent / "signing")
    settings.MIPYME_BACKUP = {
        **settings.MIPYME_BACKUP,
        "SIGNING_KEY_FILE": backups.parent / "signing",
        "ENCRYPTION": {
            "BACKEND": "mipyme_backup.encryption.GPG",
            "OPTIONS": {"recipients": [host.fingerprint], "home": host.home},
        },
    }

    english, spanish = (sheet(language) for language in LANGUAGES)

    assert shape(english) == shape(spanish)
    for text in (english, spanish):
        assert f"`{host.fingerprint}`" in text
        assert f"gpg --homedir {host.home} --import" in text
        assert "--passphrase-file ../signing --gnupghome ~/.gnupg" in text
        assert f"`{backups.parent / 'signing'}`" in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_contacts_and_checklist_are_those_of_the_settings(
    backups: Path, settings: Any, language: str
) -> None:
    settings.MIPYME_BACKUP = {
        **settings.MIPYME_BACKUP,
        "CONTACTS": [
            {"role": "Owner", "name": "Ana | Maria", "contact": "+57 600", "availability": "24/7"}
        ],
        "CHECKLIST": ["Breathe", "Call Ana"],
    }

    text = sheet(language)

    assert r"| Owner | Ana \| Maria | +57 600 | 24/7 |" in text
    assert "- [ ] Breathe\n- [ ] Call Ana\n" in text
    assert "DNS can" not in text and "DNS puede" not in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_hostile_values_become_nothing_but_text(
    backups: Path, settings: Any, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each value that a setting, the host or a path gives: no element, line, step or command."""
    given, plain = settings.MIPYME_BACKUP, shape(sheet(language))
    folder = backups.parent / "a`b ``c\n# d\x1b[2J\u202e <script>x<script> | $(id) 'q'"
    folder.mkdir()
    (backups.parent / "passphrase").rename(folder / "passphrase")
    markup = "<img src=//evil.invalid/x> [x](javascript:x) | `x` **x** # x \\"
    monkeypatch.setattr(socket, "gethostname", lambda: f"{markup}\n# x\x1b[2J\u202e")
    settings.BASE_DIR = settings.MEDIA_ROOT = folder
    settings.MIPYME_BACKUP = {
        **given,
        "PROJECT": f"{markup}\n# x\x1b[2J\u202e",
        "DESTINATIONS": {markup: {"BACKEND": LOCAL, "OPTIONS": {"location": folder / "backups"}}},
        "ENCRYPTION": {
            **given["ENCRYPTION"],
            "OPTIONS": {"passphrase_file": folder / "passphrase"},
        },
        "CONTACTS": [dict.fromkeys(("role", "name", "contact", "availability"), markup)] * 3,
        "CHECKLIST": [markup] * 7,
    }

    text = sheet(language)

    found = shape(text)
    assert {**found, "rows": 0} == {**plain, "rows": 0}, text
    assert len(found["rows"]) == len(plain["rows"])  # type: ignore[arg-type]
    assert {one for one in text if unicodedata.category(one) in ESCAPED} == {"\n"}
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert not re.search("<(script|img|a|iframe|svg)\\b", html), html


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_command_of_ours_exists_with_its_options(shop: Path, language: str) -> None:
    text = sheet(language)
    ours = {name for name, app in get_commands().items() if app == "mipyme_backup"}

    called = commands(text, "python manage.py")
    for name, *arguments in called:
        app = get_commands()[name]
        parser = load_command_class(str(app), name).create_parser("manage.py", name)
        parser.parse_args(arguments)
    for arguments in commands(text, "python3 recover.py"):
        recover.parser().parse_args(arguments)

    assert {"backup", "restore", "backup_status", "list_backups"} <= {
        name for name, *_rest in called
    } & ours


@pytest.mark.parametrize("language", LANGUAGES)
def test_way_without_the_project_works_as_printed(
    shop: Path, language: str, tmp_path: Path
) -> None:
    made = api.backup(destinations=["local"])
    shutil.copytree(shop, tmp_path / "backups", ignore=shutil.ignore_patterns(".state"))
    for name in ("passphrase", "signing"):
        shutil.copy(shop.parent / name, tmp_path)
        (tmp_path / name).chmod(0o600)
    lines = commands(sheet(language), "python3 recover.py")
    assert [line[0] for line in lines] == ["list", "verify", "unpack"]

    for line in lines:
        arguments = [made.manifest.name if word in {"NAME", "NOMBRE"} else word for word in line]
        subprocess.run(
            [sys.executable, "recover.py", *arguments], cwd=tmp_path / "backups", check=True
        )

    (folder,) = tmp_path.glob("rec*er*d*")
    assert (folder / "media" / "picture").read_text() == "before"


def test_command_prints_it_in_the_language_asked_for(backups: Path, settings: Any) -> None:
    def printed(*flags: str) -> str:
        out = io.StringIO()
        call_command("backup_status", "--recovery-sheet", *flags, stdout=out)
        return out.getvalue()

    assert printed().startswith("# Recovery sheet")
    assert printed("--language", "es").startswith("# Hoja de recuperación")
    assert json.loads(printed("--json", "--language=es"))["language"] == "es"
    settings.LANGUAGE_CODE = "es-co"
    assert printed().startswith("# Hoja de recuperación")


def test_any_other_language_is_refused(backups: Path) -> None:
    with pytest.raises(UsageError, match="fr"):
        api.recovery_sheet(language="fr")


def test_postgresql_is_told_with_role_and_version_and_no_password(
    postgresql_server: PostgreSQLServer, tmp_path: Path
) -> None:
    with postgresql_project(tmp_path, postgresql_server) as project:
        project.populate()
        project.backup()

        texts = [
            project.manage("backup_status", "--recovery-sheet", f"--language={language}").stdout
            for language in LANGUAGES
        ]

    user, password = project.database["USER"], project.database["PASSWORD"]
    for text in texts:
        assert f"createuser --createdb --pwprompt -- {user}" in text
        assert re.search(r"postgresql \d\d", text)
        assert password not in text
    assert shape(texts[0]) == shape(texts[1])
