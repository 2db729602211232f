"""Keys that change, public keys, and backups that are not what they claim to be."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import services
from tests.e2e.project import Project, postgresql_project, sqlite_project
from tests.keyrings import Ring, keyring, public_half

GPG = "mipyme_backup.encryption.GPG"


def secret_file(path: Path) -> Path:
    path.touch(mode=0o600)
    path.write_text(f"{secrets.token_urlsafe(24)}\n")
    return path


def set_options(project: Project, **changes: Any) -> None:
    project.backup_settings |= changes
    project.write()


def to_passphrase(file: Path, *old: Path) -> dict[str, Any]:
    options = {"passphrase_file": str(file), "old_passphrase_files": [str(o) for o in old]}
    return {"BACKEND": GPG, "OPTIONS": options}


def to_key(ring: Ring) -> dict[str, Any]:
    options = {"recipients": [ring.fingerprint], "home": str(ring.home)}
    return {"BACKEND": GPG, "OPTIONS": options}


def packs(project: Project) -> set[str]:
    return {path.name for path in (project.backups / "pool").iterdir()}


@pytest.fixture(autouse=True)
def _keys_are_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Project, "cheap_keys", False)


@pytest.fixture(scope="module")
def ring() -> Iterator[Ring]:
    with keyring("owner") as made:
        yield made


@pytest.fixture(scope="module")
def public(ring: Ring) -> Iterator[Ring]:
    with public_half(ring) as half:
        yield half


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, workdir: Path, public: Ring) -> Iterator[Project]:
    """A project on a host that encrypts to a key whose secret part is elsewhere."""
    options: dict[str, Any] = {
        "ENCRYPTION": to_key(public),
        "SIGNING_KEY_FILE": str(secret_file(workdir / "signing_key")),
    }
    if request.param == "sqlite":
        with sqlite_project(workdir, **options) as made:
            made.populate()
            yield made
        return
    with services.postgresql() as server, postgresql_project(workdir, server, **options) as made:
        made.populate()
        yield made


def test_host_that_cannot_decrypt_backs_up_and_the_owner_restores(
    project: Project, ring: Ring, workdir: Path
) -> None:
    first = project.backup()
    stored = packs(project)
    (project.media / "added").write_text("since then")
    second = project.backup()

    assert first["status"] == second["status"] == "complete"
    assert not any("index could not be read" in warning for warning in second["warnings"])
    assert stored < packs(project) and len(packs(project)) == len(stored) + 1
    assert all(row["ok"] for row in project.json("verify_backups", "--all"))
    for refused in (
        ["verify_backups", "--latest", "--level", "content"],
        ["restore", "--latest", "--no-input"],
    ):
        result = project.manage(*refused, check=False)
        assert result.returncode == 4, result.stderr
        assert ring.fingerprint in result.stderr and "Traceback" not in result.stderr

    live, media = project.fingerprint(), project.media_fingerprint()
    owner = project.bare_host(workdir / "owner")
    set_options(owner, ENCRYPTION=to_key(ring))
    owner.create_database()
    checked = owner.json("verify_backups", "--all", "--level", "content")
    assert [row["problems"] for row in checked] == [[], []]
    owner.restore("--latest")
    assert owner.fingerprint() == live
    assert owner.media_fingerprint() == media


def test_recovery_program_reads_what_was_encrypted_to_a_key(
    project: Project, ring: Ring, workdir: Path
) -> None:
    made = project.backup()
    program = [sys.executable, str(project.backups / "recover.py")]
    keys = ["--passphrase-file", str(workdir / "signing_key"), "--gnupghome", str(ring.home)]
    out = workdir / "out"

    subprocess.run([*program, "unpack", made["name"], "--to", str(out), *keys], check=True)

    assert (out / "media" / "plain.txt").exists()
    without = subprocess.run(
        [*program, "unpack", made["name"], "--to", str(workdir / "no"), *keys[:2]],
        capture_output=True,
        text=True,
    )
    assert without.returncode == 4
    assert "--gnupghome" in without.stderr


def test_new_keys_begin_new_packs_and_old_backups_stay_readable(workdir: Path) -> None:
    old, new = secret_file(workdir / "old"), secret_file(workdir / "new")
    with sqlite_project(workdir, ENCRYPTION=to_passphrase(old)) as project:
        project.populate()
        first = project.backup()
        live, media, before = project.fingerprint(), project.media_fingerprint(), packs(project)
        (project.media / "plain.txt").write_text("changed")

        set_options(project, ENCRYPTION=to_passphrase(new, old))
        second = project.backup()

        assert first["status"] == second["status"] == "complete"
        manifest = json.loads((project.backups / second["name"] / "manifest.json").read_text())
        used = {pack["path"].split("/")[1] for pack in manifest["packs"]}
        assert used and not used & before
        checked = project.json("verify_backups", "--all", "--level", "content")
        assert [row["problems"] for row in checked] == [[], []]
        project.destroy()
        project.restore(first["id"])
        assert project.fingerprint() == live
        assert project.media_fingerprint() == media

        set_options(project, ENCRYPTION=to_passphrase(new))
        result = project.manage("restore", first["name"], "--no-input", check=False)
        assert result.returncode == 4
        assert "passphrase" in result.stderr


def test_missing_key_of_one_backup_does_not_hide_the_damage_of_another(workdir: Path) -> None:
    old, new = secret_file(workdir / "old"), secret_file(workdir / "new")
    signing = str(secret_file(workdir / "signing"))
    with sqlite_project(
        workdir, ENCRYPTION=to_passphrase(old), SIGNING_KEY_FILE=signing
    ) as project:
        project.populate()
        first = project.backup()
        set_options(project, ENCRYPTION=to_passphrase(new))
        second = project.backup()
        volume = next((project.backups / second["name"]).glob("database*"))
        content = bytearray(volume.read_bytes())
        content[len(content) // 2] ^= 1
        volume.write_bytes(content)

        checked = project.manage(
            "verify_backups", "--all", "--level", "content", "--json", check=False
        )

        assert checked.returncode == 6
        problems = {row["id"]: row["problems"] for row in json.loads(checked.stdout)}
        assert "No passphrase" in problems[first["id"]][0]
        assert "damaged" in problems[second["id"]][0]
        copies = {row["id"]: row["copies"][0]["status"] for row in project.json("list_backups")}
        assert copies == {first["id"]: "complete", second["id"]: "damaged"}


def test_unencrypted_backup_is_refused_where_the_settings_encrypt(workdir: Path) -> None:
    signing = str(secret_file(workdir / "signing"))
    with sqlite_project(workdir, ENCRYPTION=None, SIGNING_KEY_FILE=signing) as project:
        project.populate()
        made = project.backup()
        live = project.fingerprint()
        set_options(project, ENCRYPTION=to_passphrase(secret_file(workdir / "p")))

        result = project.manage("restore", made["name"], "--no-input", check=False)

        assert result.returncode == 6
        assert "not encrypted" in result.stderr
        assert project.fingerprint() == live


def test_public_keys_without_a_signing_key_are_refused_at_once(workdir: Path, public: Ring) -> None:
    with sqlite_project(workdir, ENCRYPTION=to_key(public)) as project:
        result = project.manage("backup", check=False)

        assert result.returncode == 1
        assert "SIGNING_KEY_FILE" in result.stderr
        checked = project.manage("check", check=False)
        assert "mipyme_backup.E001" in checked.stderr


def test_forged_backup_is_refused_though_anybody_may_encrypt(
    workdir: Path, public: Ring, ring: Ring
) -> None:
    with sqlite_project(
        workdir,
        ENCRYPTION=to_key(ring),
        SIGNING_KEY_FILE=str(secret_file(workdir / "signing")),
    ) as project:
        project.populate()
        project.backup()
        live = project.fingerprint()
        forger = project.bare_host(workdir / "forger")
        shutil.copytree(project.media, forger.media)
        set_options(forger, SIGNING_KEY_FILE=str(secret_file(workdir / "another")))
        forger.manage("migrate", "--verbosity=0")
        forged = forger.backup()
        shutil.copytree(forger.backups / forged["name"], project.backups / forged["name"])

        result = project.manage("restore", forged["name"], "--no-input", check=False)

        assert result.returncode == 4
        assert "authenticates" in result.stderr
        assert project.fingerprint() == live


def test_newest_backup_that_was_hidden_is_missed(workdir: Path) -> None:
    with sqlite_project(workdir) as project:
        project.populate()
        project.backup()
        second = project.backup()
        plan = project.json("restore", "--latest", "--plan")["plan"]
        assert not any("was made" in line for line in plan)

        (project.backups / second["name"]).rename(workdir / "hidden")

        plan = project.json("restore", "--latest", "--plan")["plan"]
        assert any("number 1" in line and "number 2 was made" in line for line in plan)
        third = project.backup()
        assert any("number 2 was made" in warning for warning in third["warnings"])
        plan = project.json("restore", "--latest", "--plan")["plan"]
        assert not any("was made" in line for line in plan)

        shutil.rmtree(project.state)  # then the catalog still knows
        (project.backups / third["name"]).rename(workdir / "hidden too")
        plan = project.json("restore", "--latest", "--plan")["plan"]
        assert any("number 3 was made" in line for line in plan)
