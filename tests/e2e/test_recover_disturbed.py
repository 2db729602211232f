"""`recover.py` beside backups of which one stored file is not what it was.

Each of its commands ends with a status that is documented and with one message, tells no secret,
writes below the output folder alone, and what it says is good is good, byte for byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mipyme_backup import recover
from tests import remembered_keys, settings
from tests.e2e.disturbing import WAYS, Disturber
from tests.e2e.project import sqlite_project, write_odd_media
from tests.e2e.recover_bench import Answer, Bench
from tests.e2e.test_recover import pythons

SAMPLE = 8
FULL = 1200
MEMORY = 512 * 2**20
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


def _same_secret(bench: Bench) -> bool:
    with contextlib.suppress(OSError):
        file = bench.passphrase_file
        if file.is_file() and not file.stat().st_mode & 0o077:
            with file.open("rb") as opened:
                return opened.read(5000).removesuffix(b"\n") == bench.secret
    return False
