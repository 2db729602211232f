"""Projects drawn at random: where they keep files, of which kinds, in which schemas."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.project import Project

FOLDERS = {
    "plain": "media",
    "hidden": "private",
    "scan": "scans",
    "contract": "tenants/north",
}
"""Where the files of each field of `vault.Paper` lie, from the project's folder on."""

ROOTS = ("media", "private", "scans", "tenants", "certificates")
NAMES = (
    "a",
    "b.txt",
    "c d",
    "été.jpg",
    "-x",
    "new\nline of ours",
    ".dotted",
    "x" * 90,
    "deep/er/e",
    "f/g",
)
SETTINGS = """
INSTALLED_APPS += ["tests.vault"]
FILES = "django.core.files.storage.FileSystemStorage"
STORAGES = {{
    "default": {{"BACKEND": FILES}},
    "private": {{"BACKEND": FILES, "OPTIONS": {{"location": BASE_DIR / "private"}}}},
    "staticfiles": {{"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}},
}}
SCANS = BASE_DIR / "scans"
TENANTS = BASE_DIR / "tenants"
USE_TZ = {use_tz}
MIPYME_BACKUP["SOURCES"] = {{
    "database": {{"BACKEND": "mipyme_backup.sources.DatabaseSource"}},
    "fixtures": {{"BACKEND": "mipyme_backup.sources.FixturesSource"}},
    "media": {{"BACKEND": "mipyme_backup.sources.MediaSource", "OPTIONS": {media}}},
    "certificates": {{
        "BACKEND": "mipyme_backup.sources.FolderSource",
        "OPTIONS": {{"folder": BASE_DIR / "certificates"}},
    }},
}}
"""
Thing = tuple[str, object, int]
"""What lies at a path: its kind, its content or where it leads, and its permissions."""


@dataclass
class Drawn:
    """What was made; the settings leave out the `chosen` fields on purpose."""

    project: Project
    chosen: set[str] = field(default_factory=set)
    mounts: list[Path] = field(default_factory=list)
    schemas: list[str] = field(default_factory=list)
    told_by_field: set[str] = field(default_factory=set)

    def things(self) -> dict[str, Thing]:
        """Return all that the project keeps, by path."""
        found = {}
        for root in ROOTS:
            top = self.project.root / root
            for folder, folders, files in os.walk(top):
                for name in (*folders, *files):
                    path = Path(folder) / name
                    found[os.fsdecode(os.path.relpath(path, self.project.root))] = thing(path)
        return found

    def rows(self) -> dict[str, str]:
        return self.project.fingerprint()


def thing(path: Path) -> Thing:
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        target = Path(os.path.normpath(path.parent / os.readlink(path)))
        if target.is_file() and target.is_relative_to(path.parent):
            return thing(target)  # a link within the folder is saved as what it leads to
        return "link", os.readlink(path), 0
    if stat.S_ISREG(status.st_mode):
        return "file", hashlib.sha256(path.read_bytes()).hexdigest(), mode
    return ("folder" if stat.S_ISDIR(status.st_mode) else "special"), "", mode


@contextlib.contextmanager
def drawn(project: Project, chance: random.Random) -> Iterator[Drawn]:
    """Fill a project that is written and empty."""
    made = Drawn(project=project)
    options: dict[str, object] = {}
    match chance.randrange(5):
        case 0:
            options, made.chosen = {"exclude": ["private"]}, {"hidden"}
        case 1:
            options, made.told_by_field = {"storages": ["default"]}, {"hidden", "scan", "contract"}
    use_tz = chance.random() < 0.5
    project.more_settings = SETTINGS.format(use_tz=True, media=options)
    project.write()
    project.populate(seed=chance.randrange(3))  # whose moments are aware
    project.more_settings = SETTINGS.format(use_tz=use_tz, media=options)
    project.write()
    for root in ROOTS:
        if root == "media" or chance.random() < 0.85:
            (project.root / root).mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        for column, folder in FOLDERS.items():
            if (project.root / folder.partition("/")[0]).exists():
                _fill(made, project.root / folder, column, chance, stack)
        if (project.root / "certificates").exists():
            _files(project.root / "certificates", chance)
        if project.server is not None and chance.random() < 0.5:
            _schema(made, chance)
        yield made


def _fill(
    made: Drawn, folder: Path, column: str, chance: random.Random, stack: contextlib.ExitStack
) -> None:
    names = _files(folder, chance)
    for name in names:
        if chance.random() < 0.6:
            _row(made.project, column, name)
    if chance.random() < 0.3:
        _row(made.project, column, "never/there.txt")
    odd: list[Callable[[], object]] = [
        lambda: (folder / "inner").symlink_to(names[0]),
        lambda: (folder / "dangling").symlink_to("nowhere"),
        lambda: (folder / "loop").symlink_to("loop"),
        lambda: (folder / "outward").symlink_to("/etc/hostname"),
        lambda: os.mkfifo(folder / "pipe"),
        lambda: _socket(folder / "socket"),
        lambda: (folder / "without files").mkdir(mode=0o2750),
        lambda: (folder / names[0]).chmod(chance.choice((0o400, 0o640, 0o777))),
    ]
    for make in chance.sample(odd, chance.randrange(4)):
        make()
    if os.geteuid() == 0 and chance.random() < 0.25:
        _mount(made, folder, column, chance, stack)


def _files(folder: Path, chance: random.Random) -> list[str]:
    names = chance.sample(NAMES, chance.randrange(1, 6))
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.choice((0, 1, 500, 70_000))))
        path.chmod(chance.choice((0o644, 0o600, 0o664)))
    return names


def _row(project: Project, column: str, name: str, schema: str = "") -> None:
    columns = {"plain": "", "hidden": "", "scan": "", "contract": "", column: name}
    values = ", ".join("'{}'".format(value.replace("'", "''")) for value in columns.values())
    table = f'"{schema}".vault_paper' if schema else "vault_paper"
    project.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})")


def _socket(path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)


def _mount(
    made: Drawn, folder: Path, column: str, chance: random.Random, stack: contextlib.ExitStack
) -> None:
    """Mount a file system of its own below the folder, with files in it that rows name."""
    place = folder / "mounted"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    stack.callback(_unmount, place)
    made.mounts.append(place)
    for name in _files(place, chance):
        _row(made.project, column, f"mounted/{name}")


def _unmount(place: Path) -> None:
    if place.is_mount():
        subprocess.run(["umount", "--lazy", place], check=True)


def _schema(made: Drawn, chance: random.Random) -> None:
    """Make a schema as of a tenant, whose rows name files of the south."""
    made.schemas.append("south")
    made.project.execute(
        "CREATE SCHEMA south;"
        " CREATE TABLE south.vault_paper (LIKE public.vault_paper INCLUDING ALL)"
    )
    south = made.project.root / "tenants" / "south"
    if south.parent.exists():
        for name in _files(south, chance):
            _row(made.project, "contract", name, schema="south")


def destroy(made: Drawn) -> None:
    """Lose all of it: the database, every folder and what was mounted there."""
    for place in made.mounts:
        subprocess.run(["umount", place], check=True)
    made.project.destroy()
    for root in ROOTS:
        shutil.rmtree(made.project.root / root, ignore_errors=True)
