"""Look for inputs that reach new parts of a parser, and keep them in the corpus.

Started as ``python -m tests.fuzz.guided NAME SECONDS`` (`make fuzz` does it for each parser). It
needs atheris. An input that raises another error than one of ours ends it with that error; it
then lies in the folder `found`, which is not kept.
"""

from __future__ import annotations

import random
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

from tests.fuzz import CORPUS

LONGEST = 4096
"""Bytes of an input: larger ones reach no other code, and are slow."""

FOUND = Path(__file__).with_name("found")


def main(name: str, seconds: int) -> int:
    """Run the search in one process, then keep the smallest set of inputs that reaches as much."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    FOUND.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mb_fuzz_") as new:
        status = _search(name, [new, str(folder)], f"-max_total_time={seconds}")
        if status == 0:
            status = _keep(name, Path(new), folder)
    return status


def _keep(name: str, new: Path, folder: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="mb_fuzz_") as merged:
        status = _search(name, [merged, str(folder), str(new)], "-merge=1")
        if status == 0:
            for file in folder.iterdir():
                file.unlink()
            for number, file in enumerate(sorted(Path(merged).iterdir())):
                (folder / f"{number:03d}").write_bytes(file.read_bytes())
    return status


def _search(name: str, folders: list[str], *flags: str) -> int:
    command = [sys.executable, "-m", "tests.fuzz.guided", "--search", name]
    options = [f"-max_len={LONGEST}", f"-artifact_prefix={FOUND / name}-", "-verbosity=0"]
    return subprocess.run([*command, *options, *flags, *folders], check=False).returncode


def search(name: str, arguments: list[str]) -> None:
    """Hand over to libFuzzer, which ends the process."""
    with atheris.instrument_imports(include=["mipyme_backup", "tarfile", "json"]):
        import django

        django.setup()
        from tests.fuzz.parsers import PARSERS

    parser = PARSERS[name]
    private = Path(tempfile.mkdtemp(prefix="mb_fuzz_"))

    def attempt(data: bytes) -> None:
        parser.attempt(data, private)

    def change(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        start = data if chance.random() < 0.8 else parser.real
        return parser.change(start, chance)[:most]

    # To merge, libFuzzer has the shell start this again.
    again = shlex.join([sys.executable, "-m", "tests.fuzz.guided", "--search", name])
    atheris.Setup([again, *arguments], attempt, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1] == "--search":
        search(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main(sys.argv[1], int(sys.argv[2])))
