"""A project that is put back after every trial, killed in the middle, and looked through."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from tests.e2e.inspector import Content, Inspector, inspecting
from tests.e2e.project import Project
from tests.fingerprint import difference

CANARY_ROW = "canary-row-5bd1c0f2"
CANARY_FILE = "canary-file-a77e93d4"
ORPHAN_SECONDS = 60.0
BACKUPS = 2


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long an undisturbed run takes, and how much comes after each mark, in seconds."""

    total: float
    after_marks: tuple[float, ...]

    def scaled(self, factor: float) -> Pace:
        return Pace(
            total=self.total * factor,
            after_marks=tuple(seconds * factor for seconds in self.after_marks),
        )


class Arena:
    """A project with two backups: of `new` content, then of `old`, which is live.

    So what a restore of `first` brings can be told from what was there before.
    """

    def __init__(self, project: Project, inspector: Inspector, folder: Path) -> None:
        self.project = project
        self.inspector = inspector
        self._kept = folder / "kept"
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        self.environment = {**project.environment(), "TMPDIR": str(self._temporary)}

        project.populate()
        self._mend_sequences()
        self._set_canaries()
        self.new = inspector.content()
        self.first: str = project.backup()["id"]
        change(project)
        self.old = inspector.content()
        self.second: str = project.backup()["id"]
        self._keep()
        self.secrets = (
            CANARY_ROW.encode(),
            CANARY_FILE.encode(),
            project.passphrase_file.read_bytes().strip(),
        )

    @property
    def state(self) -> Path:
        return self.project.state

    def restore_command(self) -> list[str]:
        return ["restore", self.first, "--no-input"]

    # Putting everything back

    def reset(self) -> None:
        """Bring back the live data, the backups and the state; remove whatever else there is."""
        for path in (*self.project.root.glob(".mipyme_backup_*"), self._temporary):
            shutil.rmtree(path)
        self._temporary.mkdir()
        for name in ("backups", "media", self.state.name):
            shutil.rmtree(self.project.root / name, ignore_errors=True)
            shutil.copytree(self._kept / name, self.project.root / name)
        self._reset_database()

    def _keep(self) -> None:
        for name in ("backups", "media", self.state.name):
            shutil.copytree(self.project.root / name, self._kept / name)
        name, server = self.project.database["NAME"], self.project.server
        if server is None:
            shutil.copytree(Path(name).parent, self._kept / "data")
        else:
            self._copy_database(name, f"{name}_kept")

    def _reset_database(self) -> None:
        name, server = self.project.database["NAME"], self.project.server
        if server is None:
            shutil.rmtree(Path(name).parent)
            shutil.copytree(self._kept / "data", Path(name).parent)
            return
        for other in self.databases():
            server.drop_database(other)
        self._copy_database(f"{name}_kept", name)

    def _copy_database(self, name: str, target: str) -> None:
        assert self.project.server is not None
        names = (target, self.project.database["USER"], name)
        self.project.server.execute(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(*map(sql.Identifier, names))
        )

    def databases(self) -> list[str]:
        """Return the live database's name and those that begin with it; empty on SQLite."""
        server, name = self.project.server, self.project.database["NAME"]
        if server is None:
            return []
        found = [row[0] for row in server.execute("SELECT datname FROM pg_database")]
        return [other for other in found if other.startswith(name) and other != f"{name}_kept"]

    def _mend_sequences(self) -> None:
        """Bring those past their columns that the zoo has behind: a drill is to find nothing."""
        if self.project.server is not None:
            for table in ("zoo_tag", "zoo_employee"):
                query = f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))"
                self.project.execute(query)

    def _set_canaries(self) -> None:
        self.project.execute(f"INSERT INTO zoo_tag (slug) VALUES ('{CANARY_ROW}')")
        (self.project.media / "canary").write_text(CANARY_FILE)

    # Killing

    def pace(self, command: list[str]) -> Pace:
        """Measure an undisturbed run."""
        self.reset()
        started = time.monotonic()
        reached = []
        with self.started(command) as process:
            for mark in self._marks(command):
                self._wait_for(mark, process)
                reached.append(time.monotonic())
            assert process.wait(240) == 0, self.said()
        ended = time.monotonic()
        return Pace(total=ended - started, after_marks=tuple(ended - then for then in reached))

    def kill(self, command: list[str], pace: Pace, chance: random.Random) -> int | None:
        """Kill a run at a random moment; return its process id, None where it was too quick.

        Half of the moments are anywhere in its whole duration, the others after one of its marks:
        there is more to break.
        """
        marks = self._marks(command)
        number = None if chance.random() < 0.5 else chance.randrange(len(marks))
        span = pace.total if number is None else pace.after_marks[number]
        seconds = chance.uniform(0, span)
        with self.started(command) as process:
            if number is not None:
                self._wait_for(marks[number], process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                return None
            process.kill()
            return process.pid if process.wait(60) < 0 else None

    def run(self, command: list[str]) -> str | None:
        """Run a command to its end; return what it said where it failed."""
        ended = self.project.manage(*command, check=False, env=self.environment)
        said = (ended.stdout + ended.stderr)[-2000:]
        return f"{command[0]} ended with {ended.returncode}: {said}" if ended.returncode else None

    @contextlib.contextmanager
    def started(self, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        with (self.project.root / "output").open("wb") as output:
            process = subprocess.Popen(
                self.project.command(*command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.project.root,
                env=self.environment,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def said(self) -> str:
        return (self.project.root / "output").read_text(errors="replace")[-2000:]

    def _marks(self, command: list[str]) -> list[Callable[[], bool]]:
        """Return what tells that a run has begun to change things, and that it is all but over."""
        if command[0] == "restore":
            return [lambda: "swapping" in self._phases(), lambda: "done" in self._phases()]
        return [lambda: any(self.state.glob("runs/*.json")), self._committed]

    def _wait_for(self, mark: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None and not mark():
            time.sleep(0.001)

    def _phases(self) -> set[str]:
        return {entry["phase"] for entry in self.journal()}

    def _committed(self) -> bool:
        return len([*self.project.backups.glob("*/manifest.json")]) > BACKUPS

    # Looking

    def journal(self) -> list[dict[str, Any]]:
        entries = []
        for file in self.state.glob("restores/*.json"):
            with contextlib.suppress(FileNotFoundError):
                entries.append(json.loads(file.read_text()))
        return entries

    def orphans(self, seconds: float = ORPHAN_SECONDS) -> list[str]:
        """Return the command lines of our commands' processes that still run after `seconds`."""
        deadline = time.monotonic() + seconds
        while (found := list(self._processes())) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def _processes(self) -> Iterator[str]:
        mark = f"TMPDIR={self._temporary}\0".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes():
                    yield (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()

    def leftovers(self, killed: int, *, owed: bool) -> list[str]:
        """Return what a killed run left and the next one should have taken away.

        With `owed`, the note of one that was killed after its backup was committed may stay.
        """
        left = list(self._temporary.iterdir())
        left += Path("/tmp").glob(f"mipyme-gpg-{killed}-*")
        left += self.state.glob("work/*")
        left += [
            note
            for note in self.state.glob("runs/*")
            if not (owed and json.loads(note.read_text())["committing"])
        ]
        left += self.project.backups.glob(".tmp-*")
        left += self.state.glob("restores/*.new")
        names = [str(path) for path in left]
        names += [f"unfinished {e['id']}" for e in self.journal() if e["finished_at"] is None]
        return names + self._sides() + self._unreferenced()

    def _sides(self) -> list[str]:
        """Return the side databases, files and folders that no restore keeps for its undo."""
        kept = json.dumps(self.journal())
        paths = [*self.project.root.glob(".mipyme_backup_*")]
        if self.project.server is None:
            live = Path(self.project.database["NAME"])
            suffixes = ("", "-journal", "-wal", "-shm")
            known = {f"{live.name}{suffix}" for suffix in suffixes}
            paths += [path for path in live.parent.iterdir() if path.name not in known]
        names = [path.name for path in paths]
        names += [name for name in self.databases() if name != self.project.database["NAME"]]
        return [name for name in names if "before_" not in name or name not in kept]

    def _unreferenced(self) -> list[str]:
        """Return backups without a manifest, and packs that no manifest names."""
        manifests = [file.read_text() for file in self.project.backups.rglob("manifest.json")]
        names = []
        for folder in self.project.backups.iterdir():
            if folder.name == "pool":
                packs = [pack.name for pack in folder.iterdir()]
                names += [pack for pack in packs if not any(pack in text for text in manifests)]
            elif folder.name[0] == "." or not folder.is_dir():
                continue
            elif not (folder / "manifest.json").exists():
                names.append(folder.name)
        return names

    def plaintext(self) -> list[str]:
        """Return the files outside the live data in which something secret can be read."""
        roots = (self.project.backups, self._temporary)
        files = [path for root in roots for path in root.rglob("*") if path.is_file()]
        return [str(path) for path in files if any(s in path.read_bytes() for s in self.secrets)]


@contextlib.contextmanager
def arena(project: Project, folder: Path) -> Iterator[Arena]:
    """Yield an arena for an empty `project`; `folder` is for what it keeps."""
    folder.mkdir()
    with inspecting(project) as inspector:
        yield Arena(project, inspector, folder)


def change(project: Project) -> None:
    """Change what is live: rows, tables, files."""
    project.execute("UPDATE zoo_account SET balance = balance + 1")
    project.execute("DELETE FROM zoo_transfer")
    project.execute("CREATE TABLE newer (id integer PRIMARY KEY, tag integer)")
    project.execute("INSERT INTO newer SELECT id, id FROM zoo_tag")
    (project.media / "plain.txt").write_text("changed")
    (project.media / "empty").unlink()
    (project.media / "newer").mkdir()
    (project.media / "newer" / "file").write_text("newer")


def described(expected: Mapping[str, Content], actual: Content) -> str:
    """Return how the live data differs from each of the contents that it might have."""
    lines = [
        f"{name}: {(difference(content[0], actual[0]) + difference(content[1], actual[1]))[:5]}"
        for name, content in expected.items()
    ]
    return "; ".join(lines)
