"""Backups beside which `recover.py` runs, and a copy of them that may be disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

LONGER = 40
"""So many times the undisturbed run, and a minute, may a disturbed one take before it hangs."""


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


def _same(made: Path, stored: Path) -> bool:
    """Return whether `stored` is a regular file, maybe by a link, of the bytes of `made`."""
    with contextlib.suppress(OSError):
        if stored.is_file() and stored.stat().st_size == made.stat().st_size:
            return stored.read_bytes() == made.read_bytes()
    return False
