"""A drill restores into throwaway places, says what does not hold there, and removes them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import secrets
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup import manifest as manifests
from mipyme_backup.encryption.passphrase import derive_key, fingerprint, read_secret
from mipyme_backup.manifest import SavedSource
from tests import services
from tests.e2e.project import Project, postgresql_project, sqlite_project
from tests.fingerprint import difference
from tests.keyrings import keyring, public_half

FAST = 'PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]\n'
STEPS = [
    "fetch_and_load:database:default",
    "fetch_and_load:media",
    "counts",
    "check",
    "migrations",
    "constraints",
    "sequences",
    "files",
    "login",
    "crud",
    "log",
]
ASSERTIONS = """
import logging
import os
import time
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.mail import send_mail
from django.db import connections

from tests.zoo.models import Document, Tag


def holds():
    assert Tag.objects.exists() and not User.objects.filter(username__contains="drill").exists()


def fails():
    assert not Tag.objects.exists(), "there are tags in the shop"


def is_false():
    return False


def breaks():
    raise LookupError("no such shop")


def leaves():
    raise SystemExit(0)


def dies():
    os._exit(0)


def logs_an_error():
    logger = logging.getLogger("shop.orders")
    logger.propagate = False
    logger.warning("this one does not count")
    logger.error("order %d is lost", 7)


def writes_through_every_link():
    for path in Path(settings.MEDIA_ROOT).rglob("*"):
        if path.is_symlink():
            (path / "of the drill").write_text("of the drill")


def destroys_everything():
    Document.objects.all().delete()
    Tag.objects.all().delete()
    User.objects.all().delete()
    for name in default_storage.listdir("")[1]:
        default_storage.delete(name)
    default_storage.save("new", ContentFile(b"of the drill"))
    (Path(settings.MEDIA_ROOT) / "newer").write_text("of the drill")
    cache.set("key", "of the drill")
    send_mail("of", "the drill", "a@example.com", ["b@example.com"])
    with connections["default"].cursor() as cursor:
        cursor.execute("DROP TABLE zoo_orderline")


def reaches_for_another_database():
    with connections["other"].cursor() as cursor:
        cursor.execute("DELETE FROM things")


def waits():
    (settings.BASE_DIR / "waiting").write_text(f"{os.getpid()}")
    time.sleep(200)
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def original(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """A project with one backup. Nobody changes it: each test has a clone of its own."""
    folder = tmp_path_factory.mktemp("drill")
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            made = stack.enter_context(sqlite_project(folder))
        else:
            server = stack.enter_context(services.postgresql())
            made = stack.enter_context(postgresql_project(folder, server))
        made.more_settings = FAST
        made.write()
        made.populate()
        _set_sequences(made)
        closed = made.media / "closed"
        closed.mkdir()
        (closed / "file").write_text("nobody may write beside it")
        closed.chmod(0o500)
        made.backup()
        yield made
        closed.chmod(0o700)


@pytest.fixture
def project(original: Project, workdir: Path) -> Iterator[Project]:
    clone = original.clone(workdir / "clone")
    (clone.root / "drill_assertions.py").write_text(ASSERTIONS)
    yield clone
    (clone.media / "closed").chmod(0o700)


@pytest.fixture
def on_sqlite(workdir: Path) -> Iterator[Project]:
    with sqlite_project(workdir) as made:
        made.more_settings = FAST
        made.write()
        made.populate()
        (made.root / "drill_assertions.py").write_text(ASSERTIONS)
        yield made


def _set_sequences(project: Project) -> None:
    """The zoo gives rows their keys itself, which leaves sequences behind."""
    if project.server is not None:
        project.execute(project.manage("sqlsequencereset", "auth", "zoo", "zoo_postgresql").stdout)


def ask(project: Project, *names: str) -> None:
    """Set the drill's own assertions."""
    paths = [f"drill_assertions.{name}" for name in names]
    project.backup_settings = {**project.backup_settings, "DRILL_ASSERTIONS": paths}
    project.write()


def drill(project: Project, *args: str, status: int = 0) -> dict[str, Any]:
    result = project.manage("restore_drill", *args, "--json", check=False)
    assert result.returncode == status, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def problems(document: Mapping[str, Any]) -> dict[str, str]:
    """Return what was found, by step."""
    return {s["name"]: "\n".join(s["problems"]) for s in document["steps"] if not s["ok"]}


def left_behind(project: Project) -> list[str]:
    """Return what only a drill can have made, and that should be gone."""
    state = project.state
    found = [
        str(path)
        for name in ("work", "restores")
        if (state / name).is_dir()
        for path in (state / name).iterdir()
    ]
    found += [str(path) for ending in ("*.tmp", "*.new") for path in state.rglob(ending)]
    if project.server is None:
        live = Path(project.database["NAME"])
        found += [str(path) for path in live.parent.iterdir() if path != live]
    else:
        names = project.server.execute("SELECT datname FROM pg_database")
        found += [name for (name,) in names if name.startswith(f"{project.database['NAME']}_")]
    return found


def live(project: Project) -> dict[object, object]:
    return {**_texts(project.fingerprint()), **_texts(project.media_fingerprint())}


def _texts(held: Mapping[Any, object]) -> dict[object, object]:
    return dict(held)


def forge(project: Project, change: Callable[[dict[str, int]], None]) -> None:
    """Let the manifest, signed with the key, state other tables than were saved."""
    (path,) = project.backups.glob("*/manifest.json")
    secret = read_secret(project.passphrase_file)
    key = (fingerprint(secret), secret)
    manifest = manifests.load(
        path.read_bytes(),
        secrets_by_key=dict([key]),
        derive_key=derive_key,
        trust_needed=True,
    )
    changed = dataclasses.replace(
        manifest, sources=tuple(_changed(source, change) for source in manifest.sources)
    )
    path.write_bytes(manifests.dump(changed, key=key, derive_key=derive_key))


def _changed(source: SavedSource, change: Callable[[dict[str, int]], None]) -> SavedSource:
    if not source.name.startswith("database:"):
        return source
    ((name, facts),) = source.facts.items()
    tables = dict(facts["tables"])
    change(tables)
    return dataclasses.replace(source, facts={name: {**facts, "tables": tables}})


def test_good_backup_passes(project: Project) -> None:
    ask(project, "holds")
    before = live(project)
    (backup,) = project.json("list_backups")

    found = drill(project)

    assert found["passed"] and found["within_rto"] and found["rto_seconds"] == 3600
    assert found["backup"] == {"id": backup["id"], "name": backup["name"]}
    assert found["destination"] == "local"
    names = [*STEPS[:-1], "assertion:drill_assertions.holds", "log"]
    assert [step["name"] for step in found["steps"]] == names
    assert all(step["ok"] and not step["problems"] for step in found["steps"])
    assert 0 < sum(step["seconds"] for step in found["steps"]) <= found["seconds"]
    assert difference(before, live(project)) == []
    assert left_behind(project) == []
    query = "SELECT backup_name, passed, destination FROM mipyme_backup_drill"
    assert [*map(tuple, project.execute(query))] == [(backup["name"], True, "local")]


@pytest.mark.torture
def test_step_and_report_are_shown(project: Project) -> None:
    ask(project, "holds", "fails")

    result = project.manage("restore_drill", check=False)

    assert result.returncode == 1
    for text in ("Constraints hold", "there are tags in the shop", "RTO", "failed"):
        assert text in result.stdout


def test_every_fault_of_the_data_is_named(project: Project) -> None:
    """Each is one that the live data really had when it was backed up."""
    sqlite = project.server is None
    for statement in (
        "INSERT INTO zoo_document (title, file) VALUES ('lost', 'documents/2025/lost.pdf')",
        "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'zoo_tag'"
        if sqlite
        else "SELECT setval('zoo_tag_id_seq', 1)",
        "INSERT INTO zoo_city (country_id, name) VALUES ('??', 'Nowhere')"
        if sqlite
        else "CREATE TABLE zoo_city_2 (tag integer); INSERT INTO zoo_city_2 VALUES (-1);"
        " ALTER TABLE zoo_city_2 ADD CONSTRAINT lost"
        " FOREIGN KEY (tag) REFERENCES zoo_tag NOT VALID",
        "DELETE FROM django_migrations WHERE app = 'auth' AND name LIKE '0012%'",
    ):
        project.execute(statement)
    project.backup()
    before = live(project)

    found = drill(project, status=1)

    said = problems(found)
    assert [*said] == ["migrations", "constraints", "sequences", "files"]
    assert "auth.0012_" in said["migrations"]
    assert "zoo_city" in said["constraints"]
    assert "zoo_tag" in said["sequences"] and said["sequences"].count("\n") == 0
    assert "documents/2025/lost.pdf" in said["files"] and said["files"].count("\n") == 0
    assert difference(before, live(project)) == []
    assert left_behind(project) == []
    assert project.execute("SELECT count(*) FROM mipyme_backup_drill WHERE NOT passed") == [(1,)]


def test_backup_that_is_not_what_its_manifest_says(project: Project) -> None:
    def change(tables: dict[str, int]) -> None:
        label = next(label for label in tables if label.rpartition(".")[2] == "zoo_tag")
        tables[label] += 1
        tables[f"{label}_gone"] = 3

    forge(project, change)

    found = drill(project, status=1)

    assert [*problems(found)] == ["counts"]
    first, second = problems(found)["counts"].splitlines()
    assert "zoo_tag has" in first and "zoo_tag_gone" in second
    assert left_behind(project) == []


def test_assertions_that_do_not_hold_are_named(project: Project) -> None:
    says = {
        "fails": "there are tags in the shop",
        "is_false": "False",
        "breaks": "LookupError: no such shop",
        "leaves": "SystemExit",
        "is_missing": "is_missing",
    }
    ask(project, *says, "logs_an_error")

    found = drill(project, status=1)

    said = problems(found)
    assert [*said] == [*(f"assertion:drill_assertions.{name}" for name in says), "log"]
    assert all(says[name] in said[f"assertion:drill_assertions.{name}"] for name in says)
    assert said["log"] == "ERROR shop.orders: order 7 is lost"
    assert left_behind(project) == []


def test_assertion_that_ends_the_process_is_named(on_sqlite: Project) -> None:
    ask(on_sqlite, "dies")
    on_sqlite.backup()

    found = drill(on_sqlite, status=1)

    step = "assertion:drill_assertions.dies"
    assert problems(found) == {step: "the process of the drill ended before its last step"}


def test_nothing_that_the_project_does_there_reaches_what_is_live(project: Project) -> None:
    ask(project, "destroys_everything")
    before = live(project)

    found = drill(project)

    assert found["passed"]
    assert len(before) > 50
    assert difference(before, live(project)) == []
    assert left_behind(project) == []


def test_settings_that_are_read_while_they_are_imported_are_those_of_the_drill(
    on_sqlite: Project,
) -> None:
    """As by a Celery app in the package of the settings, that is made with their broker."""
    ask(on_sqlite, "destroys_everything")
    (on_sqlite.root / "config" / "__init__.py").write_text(
        "from django.conf import settings\n\nEARLY = settings.MEDIA_ROOT\n"
    )
    on_sqlite.backup()
    before = live(on_sqlite)

    found = drill(on_sqlite)

    assert found["passed"]
    assert difference(before, live(on_sqlite)) == []


def test_killed_drill_is_tidied_by_the_next(project: Project) -> None:
    ask(project, "waits")
    before = live(project)
    process = subprocess.Popen(
        project.command("restore_drill"), cwd=project.root, env=project.environment()
    )
    child = _read_when_there(project.root / "waiting")
    made = left_behind(project)
    process.send_signal(signal.SIGKILL)
    process.wait()

    ask(project, "holds")
    result = project.manage("restore_drill", "--json")
    found = json.loads(result.stdout)

    assert "The interrupted drill" in result.stderr
    assert any("/work/" in name for name in made) and any("/restores/" in name for name in made)
    if project.server is not None:
        name = project.database["NAME"]
        assert any(re.fullmatch(rf"{name}__drill_[0-9a-f]{{16}}", left) for left in made)
    assert found["passed"]
    assert not _runs(child)
    assert left_behind(project) == []
    assert difference(before, live(project)) == []


@pytest.mark.torture
def test_interrupted_drill_leaves_nothing(project: Project) -> None:
    ask(project, "waits")
    process = subprocess.Popen(
        project.command("restore_drill"), cwd=project.root, env=project.environment()
    )
    child = _read_when_there(project.root / "waiting")
    process.terminate()

    assert process.wait(60) == 143
    assert not _runs(child)
    assert left_behind(project) == []


def _runs(pid: int) -> bool:
    """Say whether the process runs; one that has ended may wait long for the host's init."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _read_when_there(path: Path) -> int:
    deadline = time.monotonic() + 100
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return int(path.read_text())


def test_damaged_copy_fails_and_the_evidence_is_kept(project: Project) -> None:
    (volume,) = project.backups.glob("*/database.default.*.00000")
    data = bytearray(volume.read_bytes())
    data[len(data) // 2] ^= 1
    volume.write_bytes(data)

    error = drill(project, status=6)["error"]

    assert error["code"] == "damaged" and volume.name in error["message"]
    (report,) = (project.state / "drills").glob("*.json")
    found = json.loads(report.read_text())
    assert [*problems(found)] == ["fetch_and_load:database:default"]
    assert project.execute("SELECT count(*) FROM mipyme_backup_drill WHERE NOT passed") == [(1,)]
    assert left_behind(project) == []


@pytest.mark.torture
def test_drills_are_no_part_of_a_backup_and_survive_a_restore(project: Project) -> None:
    first = drill(project)
    project.backup()

    project.restore("--latest")
    file = str(project.root / "copy.sqlite3")
    copy = f"{project.database['NAME']}_copy" if project.server else file
    project.restore("--latest", "--to-database", copy)

    count = "SELECT count(*) FROM mipyme_backup_drill"
    assert project.execute(count, name=copy) == [(0,)]
    assert project.execute("SELECT drill_id FROM mipyme_backup_drill") == [(first["id"],)]


def test_history_outlives_a_restore_of_a_backup_that_is_older_than_drills(
    on_sqlite: Project,
) -> None:
    on_sqlite.manage("migrate", "mipyme_backup", "0001", "--verbosity=0")
    on_sqlite.backup()
    on_sqlite.manage("migrate", "--verbosity=0")
    assert [*problems(drill(on_sqlite, status=1))] == ["migrations"]

    on_sqlite.restore("--latest")
    on_sqlite.restore("--latest")

    assert on_sqlite.execute("SELECT count(*) FROM mipyme_backup_restore") == [(2,)]
    assert not on_sqlite.execute("SELECT 1 FROM sqlite_master WHERE name = 'mipyme_backup_drill'")


@pytest.mark.rare
def test_links_that_lead_out_of_the_media_are_not_made_in_a_drill(
    on_sqlite: Project, workdir: Path
) -> None:
    disk = workdir / "another disk"
    (disk / "album").mkdir(parents=True)
    (on_sqlite.media / "photos").symlink_to(disk)
    (on_sqlite.media / "album").symlink_to("../another disk/album")
    ask(on_sqlite, "writes_through_every_link")
    on_sqlite.backup()

    found = drill(on_sqlite)

    assert found["passed"]
    assert [path.name for path in disk.rglob("*")] == ["album"]
    assert left_behind(on_sqlite) == []
    assert (on_sqlite.media / "photos").is_symlink()


def test_chosen_backup_and_destination(on_sqlite: Project) -> None:
    first = on_sqlite.backup()
    on_sqlite.backup()

    found = drill(on_sqlite, first["id"][:6], "--from", "local")

    assert found["backup"]["id"] == first["id"]


@pytest.mark.parametrize(
    ("args", "status", "code"),
    [
        (["nosuch"], 4, "no_backup"),
        (["--from", "nowhere"], 2, "usage"),
        (["nosuch", "--latest"], 2, "usage"),
        ([], 4, "no_backup"),
    ],
)
def test_what_cannot_be_tried_is_refused(
    on_sqlite: Project, args: list[str], status: int, code: str
) -> None:
    on_sqlite.backups.mkdir(mode=0o700, exist_ok=True)  # mounted, and empty

    error = drill(on_sqlite, *args, status=status)["error"]

    assert error["code"] == code
    assert not (on_sqlite.state / "drills").exists()
    assert on_sqlite.execute("SELECT count(*) FROM mipyme_backup_drill") == [(0,)]


def test_host_that_cannot_decrypt_refuses(workdir: Path) -> None:
    signing = workdir / "signing_key"
    signing.touch(mode=0o600)
    signing.write_text(f"{secrets.token_urlsafe(24)}\n")
    with keyring("owner") as ring, public_half(ring) as public:
        encryption = {
            "BACKEND": "mipyme_backup.encryption.GPG",
            "OPTIONS": {"recipients": [ring.fingerprint], "home": str(public.home)},
        }
        options = {"ENCRYPTION": encryption, "SIGNING_KEY_FILE": str(signing)}
        with sqlite_project(workdir / "project", **options) as project:
            project.populate()
            project.backup()

            error = drill(project, status=4)["error"]

            assert error["code"] == "key_missing"
            assert not (project.state / "drills").exists()
            assert left_behind(project) == []


def test_another_run_holds_the_lock(on_sqlite: Project) -> None:
    on_sqlite.backup()
    ask(on_sqlite, "waits")
    process = subprocess.Popen(
        on_sqlite.command("restore_drill"), cwd=on_sqlite.root, env=on_sqlite.environment()
    )
    try:
        _read_when_there(on_sqlite.root / "waiting")
        error = json.loads(on_sqlite.manage("backup", "--json", check=False).stdout)["error"]
    finally:
        process.terminate()
        process.wait(60)

    assert error["code"] == "locked" and "drill" in error["message"]


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        ("en", ["Restore drill", "Problems found", "What was done", "Signed", "Login works"]),
        (
            "es",
            ["Simulacro de restauración", "Problemas encontrados", "Qué se hizo", "Firma"],
        ),
    ],
)
def test_report_is_kept(on_sqlite: Project, language: str, texts: list[str]) -> None:
    on_sqlite.backup_settings = {"CHECKLIST": ["Call <Ana> & the bank"]}
    ask(on_sqlite, "fails")
    on_sqlite.backup()

    found = drill(on_sqlite, "--language", language, status=1)

    as_json, page = map(Path, found["reports"])
    assert {stat.S_IMODE(path.stat().st_mode) for path in (as_json, page)} == {0o600}
    assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
    kept = json.loads(as_json.read_text())
    assert kept["project"] == "config" and kept["steps"] == found["steps"]
    html = page.read_text()
    for text in [*texts, found["backup"]["name"], "there are tags in the shop"]:
        assert text in html
    assert "Call &lt;Ana&gt; &amp; the bank" in html and "<Ana>" not in html
    assert not re.search(r"(?:src|href)=|url\(", html)


@pytest.mark.torture
def test_restore_that_takes_too_long_is_said(on_sqlite: Project) -> None:
    on_sqlite.more_settings += 'MIPYME_BACKUP["RTO"] = datetime.timedelta(milliseconds=1)\n'
    on_sqlite.write()
    on_sqlite.backup()

    found = drill(on_sqlite)

    assert found["passed"] and not found["within_rto"]
    assert "longer than the RTO" in Path(found["reports"][1]).read_text()


def test_database_that_is_not_saved_cannot_be_reached(on_sqlite: Project) -> None:
    other = on_sqlite.root / "other.sqlite3"
    on_sqlite.execute("CREATE TABLE things (id integer)", name=str(other))
    on_sqlite.execute("INSERT INTO things VALUES (1)", name=str(other))
    on_sqlite.more_settings += (
        f'DATABASES["other"] = {{"ENGINE": "django.db.backends.sqlite3", "NAME": {str(other)!r}}}\n'
        'MIPYME_BACKUP["SOURCES"] = {"database": {"BACKEND":'
        ' "mipyme_backup.sources.DatabaseSource", "OPTIONS": {"aliases": ["default"]}}}\n'
    )
    ask(on_sqlite, "reaches_for_another_database")
    on_sqlite.backup()

    found = drill(on_sqlite, status=1)

    step = "assertion:drill_assertions.reaches_for_another_database"
    assert [*problems(found)] == [step] and "DATABASES" in problems(found)[step]
    assert "files" not in [step["name"] for step in found["steps"]]
    assert on_sqlite.execute("SELECT count(*) FROM things", name=str(other)) == [(1,)]


@pytest.mark.torture
def test_every_saved_database_is_restored(on_sqlite: Project) -> None:
    other = on_sqlite.root / "data2" / "other.sqlite3"
    other.parent.mkdir()
    on_sqlite.execute("CREATE TABLE things (id integer)", name=str(other))
    on_sqlite.more_settings += (
        f'DATABASES["other"] = {{"ENGINE": "django.db.backends.sqlite3", "NAME": {str(other)!r}}}\n'
    )
    ask(on_sqlite, "reaches_for_another_database")
    on_sqlite.backup()
    on_sqlite.execute("INSERT INTO things VALUES (1)", name=str(other))

    found = drill(on_sqlite)

    assert "fetch_and_load:database:other" in [step["name"] for step in found["steps"]]
    assert on_sqlite.execute("SELECT count(*) FROM things", name=str(other)) == [(1,)]


@pytest.mark.torture
def test_project_that_does_not_start_any_more_fails(on_sqlite: Project) -> None:
    on_sqlite.backup()
    on_sqlite.more_settings += (
        'import sys\nif "mipyme_backup.drills.__main__" in sys.modules or'
        ' any("mipyme_backup" in item and "drills" in item for item in sys.argv[:1]):\n'
        '    raise RuntimeError("the settings need a server that is gone")\n'
    )
    on_sqlite.write()

    found = drill(on_sqlite, status=1)

    assert [*problems(found)] == ["check"]
    assert "a server that is gone" in problems(found)["check"]


MEMBERS = """
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models


class Branch(models.Model):
    name = models.CharField(max_length=20)


class Member(AbstractBaseUser):
    email = models.EmailField(unique=True)
    number = models.PositiveIntegerField(unique=True)
    badge = models.CharField(max_length=6, unique=True)
    joined = models.DateField()
    branch = models.ForeignKey(Branch, models.PROTECT)
    is_active = models.BooleanField(default=True)

    objects = BaseUserManager()
    USERNAME_FIELD = "email"
    REQUIRED_FIELDS = ["joined", "branch"]
"""
BACKENDS = """
from members.models import Member


class ByEmail:
    def authenticate(self, request, email, password):
        if request is None:
            raise TypeError("a request is needed")
        member = Member.objects.filter(email=email).first()
        return member if member and member.check_password(password) else None

    def get_user(self, pk):
        return Member.objects.filter(pk=pk).first()


class Closed(ByEmail):
    def authenticate(self, request, email, password):
        return None
"""


@pytest.mark.parametrize("backend", ["ByEmail", "Closed"])
def test_users_and_back_ends_of_the_projects_own(workdir: Path, backend: str) -> None:
    with sqlite_project(workdir) as project:
        package = project.root / "members"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "models.py").write_text(MEMBERS)
        (package / "backends.py").write_text(BACKENDS)
        project.more_settings = (
            f'{FAST}INSTALLED_APPS += ["members"]\nAUTH_USER_MODEL = "members.Member"\n'
            f'AUTHENTICATION_BACKENDS = ["members.backends.{backend}"]\n'
        )
        project.write()
        project.manage("makemigrations", "members", "--verbosity=0")
        project.manage("migrate", "--verbosity=0")
        project.execute("INSERT INTO members_branch (name) VALUES ('north')")
        project.media.mkdir()
        project.backup()

        found = drill(project, status=0 if backend == "ByEmail" else 1)

        assert [*problems(found)] == ([] if backend == "ByEmail" else ["login"])
        assert project.execute("SELECT count(*) FROM members_member") == [(0,)]


def test_no_secret_is_told(original: Project, workdir: Path) -> None:
    """The process of the drill has no password in its arguments, and its files are private."""
    if original.server is None:
        pytest.skip("SQLite has no password")
    clone = original.clone(workdir / "clone")
    (clone.root / "drill_assertions.py").write_text(ASSERTIONS)
    ask(clone, "waits")
    process = subprocess.Popen(
        clone.command("restore_drill"), cwd=clone.root, env=clone.environment()
    )
    try:
        child = _read_when_there(clone.root / "waiting")
        said = (
            Path(f"/proc/{child}/cmdline").read_bytes()
            + Path(f"/proc/{child}/environ").read_bytes()
        )
        written = [path for path in clone.state.rglob("*") if path.is_file()]
        open_to_others = [
            path
            for path in written
            if path.stat().st_mode & 0o077 and path.parent.name == "project"
        ]
        texts = [path.read_bytes() for path in written if path.suffix == ".json"]
    finally:
        process.terminate()
        process.wait(60)

    password = clone.database["PASSWORD"].encode()
    assert password not in said
    assert texts and not any(password in text for text in texts)
    assert open_to_others == []
    (clone.media / "closed").chmod(0o700)
