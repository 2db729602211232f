"""`recover.py` beside backups of which one stored file is not what it was.

Each of its commands ends with a status that is documented and with one message, tells no secret,
writes below the output folder alone, and what it says is good is good, byte for byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mipyme_backup import recover
from tests import remembered_keys, settings
from tests.e2e.disturbing import WAYS, Disturber
from tests.e2e.project import sqlite_project, write_odd_media
from tests.e2e.test_recover import pythons

SAMPLE = 8
FULL = 1200
MEMORY = 512 * 2**20
LONGER = 40
"""So many times the undisturbed run, and a minute, may a disturbed one take before it hangs."""
STATUSES = {recover.FINE, recover.FAILED, recover.USAGE, recover.NOTHING, recover.DAMAGED}
PROGRESS = re.compile(r"(Reading|Checking the stored files of|Unpacking) .* \.\.\.")
TRACES = ("Traceback", "Exception", "MemoryError", "Errno", "object at 0x")
AT_START = """\
import resource, runpy
from pathlib import Path

resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
runpy.run_path({keys!r})["remember"](Path({folder!r}))
"""
PYTHONS = pythons()
"""The oldest one has no module for zstd, and so uses the program."""
SIGNED = ("manifest", "signed")
WAITING = ("passphrase", "fifo")
"""A passphrase may come through a pipe, so one without a writer is waited for."""


@dataclass(kw_only=True)
class Answer:
    status: int
    out: str
    err: str
    seconds: float


@dataclass(kw_only=True)
class Bench:
    """Backups as they were made, a copy of them to disturb, and the program beside neither.

    `good` is what an undisturbed `unpack` gave, by the backup's name, and `seconds` how long
    the slowest command took then.
    """

    root: Path
    secret: bytes
    names: list[str]
    python: str = sys.executable
    good: dict[str, dict[str, str]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def made(self) -> Path:
        return self.root / "made"

    @property
    def store(self) -> Path:
        return self.root / "disturbed" / "backups"

    @property
    def passphrase_file(self) -> Path:
        return self.root / "disturbed" / "passphrase"

    @property
    def out(self) -> Path:
        return self.root / "out"

    def reset(self) -> None:
        shutil.rmtree(self.store.parent, ignore_errors=True)
        shutil.copytree(self.made, self.store)
        self.passphrase_file.write_bytes(self.secret + b"\n")
        self.passphrase_file.chmod(0o600)

    def kinds(self) -> dict[str, list[Path]]:
        """Return the files that a person has on the day of a disaster, by what they are."""
        kinds: dict[str, list[Path]] = {"passphrase": [self.passphrase_file]}
        for path in sorted(self.store.rglob("*")):
            if path.is_file():
                kind = "pack" if "pool" in path.parts else path.name.partition(".")[0]
                kinds.setdefault(kind, []).append(path)
        return kinds

    def run(self, *args: str) -> Answer:
        command = [self.python, str(self.root / "recover.py"), *args]
        command += ["--from", str(self.store), "--passphrase-file", str(self.passphrase_file)]
        started = time.monotonic()
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.root / "work",
            env={
                "PATH": os.environ["PATH"],
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(self.root / "start"),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HOME": str(self.root / "work"),
                "TMPDIR": str(self.root / "work"),
            },
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=60 + LONGER * (self.seconds or 60))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise AssertionError(f"{args} hangs") from None
        return Answer(
            status=process.returncode,
            out=out.decode(),
            err=err.decode(),
            seconds=time.monotonic() - started,
        )

    def intact(self, name: str) -> bool:
        """Return whether each file that the backup needs has the bytes as made."""
        manifest = json.loads((self.made / name / "manifest.json").read_bytes())
        needed = [f"{name}/manifest.json"] + [
            f"{artifact['path']}.{number:05d}"
            for source in (*manifest["sources"], {"artifacts": manifest["packs"]})
            for artifact in source["artifacts"]
            for number in range(len(artifact["volumes"]))
        ]
        return all(_same(self.made / path, self.store / path) for path in needed)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("disturbed")
    with sqlite_project(root / "project", VOLUME_SIZE=64 * 1024) as project:
        project.manage("migrate", "--verbosity=0")
        project.execute("CREATE TABLE noise AS SELECT randomblob(100000) AS bytes")
        write_odd_media(project.media)
        (project.media / "noise").write_bytes(os.urandom(100_000))
        project.backup("--kind", "monthly")
        (project.media / "plain.txt").write_bytes(b"changed since")
        report = project.backup()
        project.manage("pin_backup", report["id"])
        names = [path.parent for path in project.backups.rglob("manifest.json")]
        shutil.copytree(
            project.backups, root / "made", ignore=shutil.ignore_patterns(".state", "recover.py")
        )
        secret = project.passphrase_file.read_bytes().strip()
        made = Bench(
            root=root,
            secret=secret,
            names=sorted(path.relative_to(project.backups).as_posix() for path in names),
        )
        (root / "work").mkdir()
        (root / "start").mkdir()
        (root / "start" / "sitecustomize.py").write_text(
            AT_START.format(
                memory=MEMORY, keys=remembered_keys.__file__, folder=str(settings.WORK_DIR)
            )
        )
        shutil.copyfile(recover.__file__, root / "recover.py")
        made.reset()
        answers = [made.run("list"), made.run("verify", "--content")]
        for name in made.names:
            answers.append(made.run("unpack", name, "--to", str(made.out)))
            made.good[name] = _held(made.out)
            shutil.rmtree(made.out)
        assert {answer.status for answer in answers} == {recover.FINE}, answers
        assert {path for path in made.good[made.names[-1]] if path.startswith("media/")} >= {
            f"media/{path.relative_to(project.media)}" for path in project.media.rglob("*")
        }
        made.seconds = max(answer.seconds for answer in answers)
        yield made


def test_one_disturbed_file(
    bench: Bench, torture_random: random.Random, tell: Callable[[str], None]
) -> None:
    disturb_often(bench, SAMPLE, torture_random, tell)


@pytest.mark.torture
@pytest.mark.timeout(7200)
def test_every_kind_of_file_disturbed_in_every_way(
    bench: Bench,
    torture_random: random.Random,
    tell: Callable[[str], None],
    scaled: Callable[[int, int], int],
) -> None:
    disturb_often(bench, scaled(FULL, SAMPLE), torture_random, tell)


def disturb_often(
    bench: Bench, rounds: int, chance: random.Random, tell: Callable[[str], None]
) -> None:
    bench.reset()
    pairs = [*itertools.product(bench.kinds(), WAYS), *[SIGNED] * 20]
    pairs.remove(WAITING)
    turns: list[tuple[str, str]] = []
    while len(turns) < rounds:
        turns += chance.sample(pairs, len(pairs))
    counts: Counter[str] = Counter()
    problems: list[str] = []
    for kind, way in turns[:rounds]:
        bench.reset()
        bench.python = chance.choice(PYTHONS)
        path = chance.choice(bench.kinds()[kind])
        label = f"{way}: {path.relative_to(bench.store.parent)}"
        try:
            Disturber(bench.store, bench.secret, chance).disturb(path, way)
            for said, what in judged(bench, kind, way, chance):
                counts[said] += 1
                problems += [f"{label}: {problem}" for problem in what]
        except Exception as error:
            problems.append(f"{label}: {error!r}")
    tell(f"{rounds} rounds, {len(pairs)} ways: {dict(sorted(counts.items()))}")
    assert not problems, "\n".join(problems)


def judged(
    bench: Bench, kind: str, way: str, chance: random.Random
) -> Iterator[tuple[str, list[str]]]:
    """Run each command; yield its verb and status, and what is wrong with the answer."""
    name = chance.choice(bench.names)
    only = chance.choice(([], [], ["--only", "database"], ["--only", "media"]))
    commands = {
        "list": ["list"],
        "verify": ["verify", *chance.choice(([], [name])), *chance.choice(([], ["--content"]))],
        "unpack": ["unpack", name, "--to", str(bench.out), *only],
    }
    intact = {each: bench.intact(each) for each in bench.names}
    readable = kind != "passphrase" or _same_secret(bench)
    clean = all(intact.values()) and way not in ("foreign", "above") and readable
    for verb, args in commands.items():
        before = _around(bench)
        answer = bench.run(*args)
        problems = [*_form(bench, verb, answer)]
        if _around(bench) != before:
            problems.append("something outside the output folder changed")
        if clean and answer.status != recover.FINE:
            problems.append("it refuses what is good")
        called_good = re.findall(r"^(\S+): good", answer.out, re.MULTILINE)
        wrongly = [each for each in called_good if way != "signed" and not intact.get(each)]
        problems += [f"it calls {each} good" for each in wrongly]
        if verb == "unpack":
            problems += _unpacked(bench, name, way, answer, bool(only))
            if intact[name] and readable and answer.status != recover.FINE:
                problems.append("it does not unpack what is good")
        shutil.rmtree(bench.out, ignore_errors=True)
        said = f"status {answer.status}, said: {answer.out[-400:]!r} {answer.err[-2000:]!r}"
        yield f"{verb} {answer.status}", [f"{args}: {each}; {said}" for each in problems]


def _form(bench: Bench, verb: str, answer: Answer) -> Iterator[str]:
    """Yield what is wrong with the status, and with how it is said."""
    if answer.status not in STATUSES:
        yield "the status is not documented"
    lines = [line for line in answer.err.splitlines() if not PROGRESS.fullmatch(line)]
    errors = [line for line in lines if line.startswith("Error: ")]
    if errors != lines or len(errors) > 1:
        yield "stderr is not one message"
    if verb == "unpack" and len(errors) != (answer.status != recover.FINE):
        yield "the status and the message contradict"
    if answer.status != recover.FINE and not errors and verb not in answer.out + "list verify":
        yield "it says nothing"
    if any(trace in answer.out + answer.err for trace in TRACES):
        yield "it speaks as Python does"
    if any(len(line) > 1000 or not line.isprintable() for line in answer.out.splitlines()):
        yield "a line cannot be printed"
    for secret in (bench.secret, bench.secret.hex().encode()):
        if secret in (answer.out + answer.err).encode():
            yield "it tells the passphrase"


def _unpacked(bench: Bench, name: str, way: str, answer: Answer, part: bool) -> Iterator[str]:
    """Yield what is wrong with the output folder."""
    held = _held(bench.out)
    if answer.status != recover.FINE and not held and bench.out.exists():
        yield "an empty folder is left"
    if any(".part" in path for path in held):
        yield "half-written files are left"
    if way == "signed":
        return
    good = bench.good[name]
    pieces = {path.partition("/")[0] for path in held}
    wanted = {path: what for path, what in good.items() if path.partition("/")[0] in pieces}
    if held != wanted or (answer.status == recover.FINE and not part and held != good):
        yield "what it wrote is not what was saved"


def _held(folder: Path) -> dict[str, str]:
    """Return what lies below the folder: modes, times of files, hashes of contents."""
    held = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        what = f"{status.st_mode:o}"
        if path.is_file() and not path.is_symlink():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            mtime = status.st_mtime_ns if "media/" in str(path) else 0
            what += f" {mtime} {digest}"
        held[str(path.relative_to(folder))] = what
    return held


def _around(bench: Bench) -> dict[str, tuple[int, ...]]:
    """Return all that lies around the output folder, by what would change if it were touched."""
    around: dict[str, tuple[int, ...]] = {}
    for folder, folders, files in os.walk(os.fsencode(bench.root)):
        if folder == os.fsencode(bench.root):
            folders[:] = sorted({*folders} - {b"out", b"project", b"made"})
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            if path == os.fsencode(bench.out):
                continue
            status = os.lstat(path)
            around[os.fsdecode(path)] = (status.st_mode, status.st_ino)
            if path != os.fsencode(bench.root / "work"):  # where what is temporary comes and goes
                around[os.fsdecode(path)] += (status.st_size, status.st_mtime_ns)
    return around


def _same(made: Path, stored: Path) -> bool:
    """Return whether `stored` is a regular file, maybe by a link, of the bytes of `made`."""
    with contextlib.suppress(OSError):
        if stored.is_file() and stored.stat().st_size == made.stat().st_size:
            return stored.read_bytes() == made.read_bytes()
    return False


def _same_secret(bench: Bench) -> bool:
    with contextlib.suppress(OSError):
        file = bench.passphrase_file
        if file.is_file() and not file.stat().st_mode & 0o077:
            with file.open("rb") as opened:
                return opened.read(5000).removesuffix(b"\n") == bench.secret
    return False
