"""The commands as documented: options, JSON, prompts, statuses."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import secrets
import select
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.e2e.project import Project, sqlite_project

SECONDS = 240
BACKUP = {
    "id",
    "name",
    "kind",
    "label",
    "status",
    "pinned",
    "started_at",
    "finished_at",
    "raw_size",
    "stored_size",
    "sha256",
    "host",
    "databases",
    "sources",
    "warnings",
    "copies",
}
RESTORE = {
    "id",
    "status",
    "backup",
    "plan",
    "safety_backup",
    "replaced",
    "left_out",
    "stays",
    "other_origin",
    "seconds",
    "downtime_seconds",
}
VERIFIED = {"id", "name", "destination", "ok", "problems"}

TWO_DESTINATIONS = """
MIPYME_BACKUP["DESTINATIONS"] = {
    name: {
        "BACKEND": "mipyme_backup.destinations.LocalDestination",
        "OPTIONS": {"location": BASE_DIR / "backups" / name},
    }
    for name in ("first", "second")
}
"""
OTHER_DATABASES = """
DATABASES["other"] = {**DATABASES["default"], "NAME": BASE_DIR / "other.sqlite3"}
DATABASES["twin"] = {**DATABASES["default"], "NAME": BASE_DIR / "config" / ".." / "other.sqlite3"}
"""
CALLS = """
import io, json
from django.core.management import CommandError, call_command

out = io.StringIO()
call_command("backup", json=True, only=["media"], stdout=out, verbosity=0)
print("made", json.loads(out.getvalue())["status"])
for args, options in (
    (["restore", "feedbeef"], {"interactive": False}),
    (["restore", "feedbeef"], {"json": True, "interactive": False}),
    (["restore", "feedbeef"], {"json": True}),
    (["backup"], {"destination": ["nowhere"]}),
    (["verify_backups", "feedbeef"], {}),
):
    try:
        call_command(*args, **options, stdout=io.StringIO(), stderr=io.StringIO())
    except CommandError as error:
        print(args[0], error.returncode, str(error).splitlines()[0])
"""
MODELS = (
    "from django.db import models\n\n\nclass Toy(models.Model):\n    name = models.TextField()\n"
)
MIGRATION = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = {dependencies}
    operations = [{operation}]
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A small project with one backup on two destinations; each test works on a copy of it."""
    with sqlite_project(tmp_path_factory.mktemp("commands")) as project:
        _append(project, TWO_DESTINATIONS)
        project.manage("migrate", "--verbosity=0")
        _name_group(project, "first")
        project.media.mkdir()
        (project.media / "picture").write_bytes(b"first")
        project.backup()
        yield project


@pytest.fixture
def project(original: Project, workdir: Path) -> Project:
    project = original.clone(workdir)
    _append(project, TWO_DESTINATIONS)
    return project


@pytest.fixture
def saved(project: Project) -> str:
    """The id of the backup that the project was copied with."""
    identifier: str = _manifest(project)["id"]
    return identifier


class TestJson:
    def test_every_command_prints_the_documented_members(self, project: Project) -> None:
        made = project.backup("--kind=pre_deploy", "--label=before v2")
        listed = project.json("list_backups")
        at_destination = project.json("list_backups", "--destination=second")
        verified = project.json("verify_backups", made["id"])
        planned = project.json("restore", made["id"], "--plan")
        restored = project.restore(made["id"])

        assert made.keys() == BACKUP
        assert (made["kind"], made["label"]) == ("pre_deploy", "before v2")
        assert made["sources"] == ["database:default", "fixtures", "media"]
        assert made["raw_size"] > 100_000 > made["stored_size"] > 0
        assert datetime.fromisoformat(made["started_at"]).utcoffset() == timedelta(0)
        copy = {"status": "complete", "error": None}
        assert made["copies"] == [
            {"destination": "first", **copy},
            {"destination": "second", **copy},
        ]
        assert listed[0] == made and [row["kind"] for row in listed] == ["pre_deploy", "manual"]
        assert at_destination[0] == {**made, "copies": made["copies"][1:]}
        assert [row.keys() for row in verified] == [VERIFIED, VERIFIED]
        assert {row["ok"] for row in verified} == {True}
        assert planned.keys() == restored.keys() == RESTORE
        assert (planned["status"], restored["status"]) == ("planned", "complete")
        assert restored["replaced"].keys() == {"database:default", "media"}
        assert restored["seconds"] > restored["downtime_seconds"] > 0
        assert restored["safety_backup"].startswith("safety_before_restore_")

    def test_failed_run_is_listed_with_its_reason(self, project: Project) -> None:
        (project.media / "picture").unlink()
        project.media.rmdir()
        project.media.write_text("no folder")
        _append(
            project, "MIPYME_BACKUP['SOURCES'] = {'media': {'BACKEND': 'config.broken.Broken'}}"
        )
        (project.root / "config" / "broken.py").write_text(BROKEN_SOURCE)

        failed = project.manage("backup", "--json", check=False)

        row = project.json("list_backups")[0]
        assert failed.returncode == 1
        assert row.keys() == BACKUP
        assert (row["status"], row["warnings"]) == ("failed", ["The camera is broken."])

    def test_progress_goes_to_stderr_and_can_be_silenced(self, project: Project) -> None:
        told = project.manage("backup")
        silent = project.manage("backup", "--verbosity=0", "--no-color")

        assert "Saving media.index.jsonl" in told.stderr and "Saving" not in told.stdout
        assert "complete" in told.stdout and "complete" in silent.stdout
        assert "\x1b" not in told.stdout + silent.stdout
        assert silent.stderr == ""

    @pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
    def test_output_that_cannot_be_written_is_one_message(
        self, project: Project, options: list[str]
    ) -> None:
        with open("/dev/full", "w") as full:
            result = subprocess.run(
                project.command("list_backups", *options),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                cwd=project.root,
                env=project.environment(),
                timeout=SECONDS,
            )

        assert result.returncode == 1
        assert result.stderr == "CommandError: [Errno 28] No space left on device\n"


BROKEN_SOURCE = """
from mipyme_backup.errors import SourceError
from mipyme_backup.sources.base import Source


class Broken(Source):
    name = "camera"

    def artifacts(self, view):
        raise SourceError("The camera is broken.")
"""


class TestCallCommand:
    def test_statuses_travel_as_command_errors(self, project: Project) -> None:
        printed = project.manage("shell", "-c", CALLS).stdout.splitlines()

        assert printed[-6:] == [
            "made complete",
            "restore 4 There is no backup feedbeef.",
            "restore 4 There is no backup feedbeef.",
            "restore 2 --json cannot ask whether to restore.",
            "backup 2 There is no destination nowhere.",
            "verify_backups 4 There is no backup feedbeef.",
        ]


class TestPrompts:
    def test_default_is_no(self, project: Project) -> None:
        _name_group(project, "second")

        status, said = _converse(project, "restore", "--latest", answers=[("[y/N]", "\n")])

        assert status == 0 and "Nothing was changed" in said
        assert _group(project) == "second"

    def test_lists_asks_and_restores(self, project: Project, saved: str) -> None:
        _name_group(project, "second")

        status, said = _converse(
            project, "restore", answers=[("Which one", saved[:6] + "\n"), ("[y/N]", "y\n")]
        )

        assert status == 0, said
        assert saved[:8] in said and "Plan" in said
        assert _group(project) == "first"

    def test_no_answer_chooses_nothing(self, project: Project) -> None:
        status, said = _converse(project, "restore", answers=[("Which one", "\n")])

        assert status == 4 and "nothing was changed" in said

    def test_undo_asks_too(self, project: Project) -> None:
        _name_group(project, "second")
        project.restore("--latest")

        status, said = _converse(project, "restore", "--undo", answers=[("[y/N]", "n\n")])
        after_no = _group(project)
        _converse(project, "restore", "--undo", answers=[("[y/N]", "yes\n")])

        assert (status, after_no) == (0, "first") and "Nothing was changed" in said
        assert _group(project) == "second"

    def test_no_input_asks_nothing(self, project: Project) -> None:
        _name_group(project, "second")

        status, said = _converse(project, "restore", "--latest", "--no-input", answers=[])

        assert status == 0 and "[y/N]" not in said
        assert _group(project) == "first"

    def test_nobody_to_ask_is_an_error_and_changes_nothing(self, project: Project) -> None:
        _name_group(project, "second")

        result = project.manage("restore", "--latest", check=False)

        assert result.returncode == 2
        assert "--no-input" in result.stderr and "Traceback" not in result.stderr
        assert _group(project) == "second"


class TestChoice:
    def test_at_takes_the_newest_at_or_before_a_local_time(
        self, project: Project, saved: str
    ) -> None:
        first = datetime.fromisoformat(_manifest(project)["snapshot_at"])
        second = project.backup()["id"]

        def chosen(moment: datetime | str) -> str:
            planned = project.json("restore", f"--at={moment}", "--plan")
            identifier: str = planned["backup"]["id"]
            return identifier

        local = first.astimezone(ZoneInfo("Europe/Madrid")).replace(tzinfo=None)
        assert chosen(local) == saved
        assert chosen(f"{local.date() + timedelta(days=1)}") == second
        earlier = local - timedelta(microseconds=1)
        refused = project.manage("restore", f"--at={earlier}", "--plan", "--json", check=False)
        assert refused.returncode == 4

    def test_partial_backup_is_not_the_latest_but_has_its_source(
        self, project: Project, saved: str
    ) -> None:
        media_only = project.backup("--only=media")

        whole = project.json("restore", "--latest", "--plan")
        media = project.json("restore", "--latest", "--only=media", "--plan")

        assert media_only["sources"] == ["media"]
        assert whole["backup"]["id"] == saved
        assert media["backup"]["id"] == media_only["id"]

    def test_name_and_beginning_of_the_id_choose_as_well(
        self, project: Project, saved: str
    ) -> None:
        name = _manifest(project)["name"]

        for identifier in (name, f"{name}/", saved[:7]):
            planned = project.json("restore", identifier, "--plan")
            assert planned["backup"] == {"id": saved, "name": name}

    def test_no_safety_backup_takes_none(self, project: Project) -> None:
        restored = project.restore("--latest", "--no-safety-backup")

        assert restored["safety_backup"] is None
        assert any("NO safety backup" in line for line in restored["plan"])
        assert list(project.backups.glob("first/safety*")) == []

    def test_latest_and_all_exclude_each_other(self, project: Project) -> None:
        result = project.manage("verify_backups", "--latest", "--all", "--json", check=False)

        assert result.returncode == 2
        assert json.loads(result.stdout)["error"]["code"] == "usage"

    def test_verify_reads_the_content_too(self, project: Project) -> None:
        rows = project.json("verify_backups", "--all", "--level=content", "--destination=second")

        assert [(row["destination"], row["ok"]) for row in rows] == [("second", True)]


class TestDestinations:
    def test_broken_one_makes_the_backup_partial_and_the_other_copy_is_good(
        self, project: Project
    ) -> None:
        shutil.rmtree(project.backups / "second")
        (project.backups / "second").write_text("no folder")

        result = project.manage("backup", "--json", check=False)

        made = json.loads(result.stdout)
        good, bad = made["copies"]
        assert (result.returncode, made["status"]) == (3, "partial")
        assert good == {"destination": "first", "status": "complete", "error": None}
        assert (bad["destination"], bad["status"]) == ("second", "failed")
        assert "second" in bad["error"]
        (row,) = (row for row in project.json("list_backups") if row["id"] == made["id"])
        assert (row["status"], row["copies"]) == ("partial", made["copies"])
        _name_group(project, "second")
        assert project.restore(made["id"], "--no-safety-backup")["status"] == "complete"
        assert _group(project) == "first"

    def test_one_destination_is_named(self, project: Project) -> None:
        made = project.backup("--destination=second")

        assert [copy["destination"] for copy in made["copies"]] == ["second"]
        assert (project.backups / "second" / made["name"] / "manifest.json").exists()
        assert not (project.backups / "first" / made["name"]).exists()

    def test_damaged_copy_is_passed_over_unless_it_is_named(self, project: Project) -> None:
        (volume,) = project.backups.glob("first/manual_*/database*00000")
        volume.write_bytes(b"damaged")
        _name_group(project, "second")

        named = project.manage(
            "restore", "--latest", "--from=first", "--no-input", "--json", check=False
        )
        after_damage = _group(project)
        project.restore("--latest")

        assert (named.returncode, after_damage) == (6, "second")
        assert _group(project) == "first"

    def test_sync_rebuilds_the_catalog(self, project: Project, saved: str) -> None:
        project.execute("DELETE FROM mipyme_backup_copy")
        project.execute("DELETE FROM mipyme_backup_backup")
        volumes = project.backups / "second" / _manifest(project)["name"]
        shutil.rmtree(volumes)

        project.json("list_backups", "--sync")

        (row,) = project.json("list_backups")
        assert (row["id"], row["status"]) == (saved, "complete")
        assert [copy["destination"] for copy in row["copies"]] == ["first"]

    def test_list_reads_the_destinations_where_there_is_no_catalog(
        self, project: Project, saved: str
    ) -> None:
        project.destroy()

        (row,) = project.json("list_backups")

        assert row["id"] == saved and row.keys() == BACKUP
        assert not project.database_exists()


class TestDatabases:
    def test_each_database_is_saved_once_and_restored_alone(self, project: Project) -> None:
        _append(project, OTHER_DATABASES)
        other = str(project.root / "other.sqlite3")
        project.manage("migrate", "--database=other", "--verbosity=0")
        _name_group(project, "other", other)

        made = project.backup()
        for name in (None, other):
            _name_group(project, "changed", name)
        project.restore("--latest", "--only=database:other")
        after_one = (_group(project), _group(project, other))
        project.restore(made["id"])

        assert made["sources"] == ["database:default", "database:other", "fixtures", "media"]
        assert after_one == ("changed", "other")
        assert (_group(project), _group(project, other)) == ("first", "other")


class TestKeys:
    def test_signing_key_authenticates_instead_of_the_passphrase(self, project: Project) -> None:
        key = project.root / "signing key"
        key.touch(mode=0o600)
        key.write_text(secrets.token_urlsafe(24) + "\n")
        by_passphrase = _manifest(project)["authentication"]["key"]
        _append(project, f"MIPYME_BACKUP['SIGNING_KEY_FILE'] = {str(key)!r}")

        made = project.backup()
        good = project.restore(made["id"])
        key.write_text("another\n")
        refused = project.manage("restore", made["name"], "--no-input", "--json", check=False)
        unknown = project.manage("restore", made["id"], "--no-input", "--json", check=False)

        assert _manifest(project, made["name"])["authentication"]["key"] != by_passphrase
        assert good["status"] == "complete"
        assert refused.returncode == 4
        assert unknown.returncode == 4 and "folder" in json.loads(unknown.stdout)["error"]["hint"]

    def test_without_encryption_no_gpg_is_needed(self, project: Project) -> None:
        _append(project, "MIPYME_BACKUP['ENCRYPTION'] = None")
        no_gpg = {"PATH": "/nowhere"}

        made = json.loads(project.manage("backup", "--json", env=no_gpg).stdout)
        _name_group(project, "second")
        project.manage("restore", made["id"], "--no-input", env=no_gpg)

        names = [path.name for path in (project.backups / "first" / made["name"]).iterdir()]
        assert len(names) == 4 and not any(".gpg" in name for name in names)
        assert _group(project) == "first"

    def test_old_passphrase_still_opens_what_it_closed(self, project: Project, saved: str) -> None:
        old = project.passphrase_file.rename(project.root / "old")
        project.passphrase_file.touch(mode=0o600)
        project.passphrase_file.write_text("another\n")
        _append(
            project,
            f"MIPYME_BACKUP['ENCRYPTION']['OPTIONS']['old_passphrase_files'] = [{str(old)!r}]",
        )
        _name_group(project, "second")

        made = project.backup()
        project.restore(saved)

        keys = {name: _manifest(project, name)["key_fingerprint"] for name in _names(project)}
        assert _group(project) == "first"
        assert keys[made["name"]] != keys[min(keys)]


class TestMigrations:
    def test_older_ones_are_named_and_run_on_request_and_newer_ones_refused(
        self, project: Project
    ) -> None:
        _append(project, "INSTALLED_APPS.append('toys')")
        migrations = project.root / "toys" / "migrations"
        migrations.mkdir(parents=True)
        for file in (migrations / "__init__.py", migrations.parent / "__init__.py"):
            file.touch()
        (migrations.parent / "models.py").write_text(MODELS)
        fields = '[("id", models.BigAutoField(primary_key=True)), ("name", models.TextField())]'
        create = f'migrations.CreateModel("Toy", fields={fields})'
        (migrations / "0001_initial.py").write_text(
            MIGRATION.format(dependencies=[], operation=create)
        )
        project.manage("migrate", "--verbosity=0")
        older = project.backup()["id"]
        add = 'migrations.AddField("Toy", "colour", models.TextField(default=""))'
        newest = migrations / "0002_colour.py"
        dependencies = [("toys", "0001_initial")]
        newest.write_text(MIGRATION.format(dependencies=dependencies, operation=add))
        project.manage("migrate", "--verbosity=0")
        newer = project.backup()["id"]

        plan = project.json("restore", older, "--plan")["plan"]
        project.restore(older)
        after_restore = _columns(project, "toys_toy")
        project.restore(older, "--migrate")
        after_migrate = _columns(project, "toys_toy")
        newest.unlink()
        refused = project.manage("restore", newer, "--no-input", "--json", check=False)

        assert any(line.startswith("1 migrations are newer") for line in plan)
        assert (after_restore, after_migrate) == (
            ["id", "name"],
            ["id", "name", "colour"],
        )
        error = json.loads(refused.stdout)["error"]
        assert (refused.returncode, error["code"]) == (1, "restore")
        assert "toys.0002_colour" in error["message"] and "Deploy" in error["hint"]


def _append(project: Project, text: str) -> None:
    with (project.root / "config" / "settings.py").open("a") as file:
        file.write(f"\n{text}\n")


def _name_group(project: Project, name: str, database: str | None = None) -> None:
    with contextlib.closing(sqlite3.connect(database or project.database["NAME"])) as connection:
        connection.execute("INSERT OR REPLACE INTO auth_group (id, name) VALUES (1, ?)", [name])
        connection.commit()


def _group(project: Project, database: str | None = None) -> str:
    with contextlib.closing(sqlite3.connect(database or project.database["NAME"])) as connection:
        (row,) = connection.execute("SELECT name FROM auth_group").fetchall()
        return str(row[0])


def _columns(project: Project, table: str) -> list[str]:
    return [row[1] for row in project.execute(f"PRAGMA table_info({table})")]


def _names(project: Project) -> list[str]:
    return sorted(path.parent.name for path in project.backups.glob("first/*/manifest.json"))


def _manifest(project: Project, name: str | None = None) -> dict[str, Any]:
    path = project.backups / "first" / (name or _names(project)[-1]) / "manifest.json"
    manifest: dict[str, Any] = json.loads(path.read_bytes())
    return manifest


def _converse(project: Project, *args: str, answers: list[tuple[str, str]]) -> tuple[int, str]:
    """Run a command on a terminal, and type each answer once its question has come.

    Returns its exit status and all that the terminal showed.
    """
    terminal, other_end = pty.openpty()
    try:
        process = subprocess.Popen(
            project.command(*args),
            stdin=other_end,
            stdout=other_end,
            stderr=other_end,
            cwd=project.root,
            env={**project.environment(), "COLUMNS": "120"},
            start_new_session=True,
        )
        os.close(other_end)
        said = ""
        with process:
            try:
                for question, answer in answers:
                    shown = _read(terminal, until=question)
                    os.write(terminal, answer.encode())
                    said += shown
                said += _read(terminal, until=None)
                return process.wait(SECONDS), said
            finally:
                process.kill()
    finally:
        os.close(terminal)


def _read(terminal: int, *, until: str | None) -> str:
    """Return what the terminal shows up to a text, or (None) up to its end."""
    deadline = time.monotonic() + SECONDS
    shown = b""
    while until is None or until.encode() not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"no {until!r} in {shown!r}"
        try:
            piece = os.read(terminal, 65536)
        except OSError as error:  # how Linux tells that nobody has the other end open
            if error.errno != errno.EIO:
                raise
            piece = b""
        if not piece:
            assert until is None, f"no {until!r} in {shown!r}"
            break
        shown += piece
    return shown.decode(errors="replace")
