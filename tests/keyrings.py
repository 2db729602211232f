"""GnuPG homes with keys that were made for a test, each in a folder with a short name."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Ring:
    """A GnuPG home with one key, which has a secret part that needs no passphrase."""

    home: Path
    fingerprint: str

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run gpg on this home; what it prints."""
        return subprocess.run(
            ["gpg", "--homedir", self.home, "--batch", "--quiet", *arguments],
            input=stdin,
            capture_output=True,
            check=True,
        ).stdout


@contextlib.contextmanager
def keyring(name: str, *, expires: str = "never") -> Iterator[Ring]:
    """Yield a new home with a key; `expires` as gpg takes it, such as ``2d`` or ``seconds=1``."""
    with home() as folder:
        made = ["--quick-gen-key", f"{name} <{name}@example.com>", "future-default", "default"]
        ring = Ring(home=folder, fingerprint="")
        ring.run("--passphrase", "", *made, expires)
        listed = ring.run("--list-keys", "--with-colons").decode()
        line = next(line for line in listed.splitlines() if line.startswith("fpr:"))
        yield Ring(home=folder, fingerprint=line.split(":")[9])


@contextlib.contextmanager
def public_half(ring: Ring) -> Iterator[Ring]:
    """Yield a home that has the public key of `ring` alone."""
    with home() as folder:
        public = Ring(home=folder, fingerprint=ring.fingerprint)
        public.run("--import", stdin=ring.run("--export", ring.fingerprint))
        yield public


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """Yield an empty home; the agent that gpg starts in it ends with it."""
    with tempfile.TemporaryDirectory(prefix="mb_", dir="/tmp") as folder:
        try:
            yield Path(folder)
        finally:
            subprocess.run(["gpgconf", "--homedir", folder, "--kill", "all"], capture_output=True)
