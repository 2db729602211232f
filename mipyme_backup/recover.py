#!/usr/bin/env python3
"""Recover backups that mipyme_backup made, without it: python3 recover.py --help

It lists, verifies and unpacks the backups below a folder, with nothing but Python 3.9 or newer,
gpg and zstd. It lies beside the backups, one file that imports nothing but the standard library:
that is why it is longer than a module should be, and starts its processes itself.

Exit status: 0 done; 1 error; 2 usage; 4 no such backup, or no key that opens it; 6 a backup is
damaged, not whole or not authentic. The stored format: docs/format.md of mipyme_backup.
"""

# ruff: noqa: UP017 - Python 3.9 has no datetime.UTC

import sys

if __name__ == "__main__":
    if not sys.flags.isolated and not getattr(sys.flags, "safe_path", False):
        sys.path.pop(0)  # this folder: anyone who can write to it could lay a `json.py` here
    # Built in: `signal` itself takes long to import.
    import _signal  # type: ignore[import-not-found]

    if _signal.getsignal(_signal.SIGINT) != _signal.SIG_IGN:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # until there is something to be removed

import argparse
import contextlib
import errno
import functools
import getpass
import grp
import hashlib
import hmac
import importlib
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import sqlite3
import stat
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

FINE, FAILED, USAGE, NOTHING, DAMAGED = 0, 1, 2, 4, 6
CHUNK = 256 * 1024
BLOCK = tarfile.BLOCKSIZE
MANIFEST = "manifest.json"
MANIFEST_BYTES = 64 * 2**20
MANIFEST_VALUES = 2_000_000
ENDING_BYTES = 1024
CLAIMED_PROJECT = re.compile(rb'\n "project": ("(?:[^"\\]|\\.)*")')
CLAIM_WITHIN = 16 * 1024
DERIVATIONS = 32
MARKER = b',\n "authentication": '
INDEX = "media.index.jsonl"
INDEX_END = ".index.jsonl"
POOL = "pool/"
LINE_BYTES = 2**20
PATH_BYTES = 65_536
LINK_BYTES = 4096
AS_IT_IS = -1
FOLDER_ROW = "INTO folder VALUES (?, ?, ?, ?)"
DIGITS = 20
SHOWN = 200
LARGEST = 2**63 - 1
SECRET_BYTES = 4096
FINGERPRINT_SALT = b"mipyme_backup key fingerprint, version 1"
SAFE_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._%+=@-]+")
SAFE_PATH = re.compile(r"(?!.*(^|/)\.{1,2}(/|$))[A-Za-z0-9._%+=@-]+(/[A-Za-z0-9._%+=@-]+)*")
SHA256 = re.compile(r"[0-9a-f]{64}")
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
PART = ".part"
STOPPED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.EISDIR)
PACKAGES = (
    "Install it. Debian: apt-get install gnupg zstd; Red Hat: dnf install gnupg2 zstd;"
    " Alpine: apk add gnupg zstd; macOS: brew install gnupg zstd"
)
ANOTHER = "Use another copy of this backup, or another backup."
TOO_LITTLE = "This machine has too little memory."
LARGER = "End other programs that run on it, or use a larger machine, and run this again."
TRUST = {
    "authentic": "authentic: the key at hand made it",
    "unknown": "NOT AUTHENTICATED: no key at hand proves who made it",
    "unsigned": "NOT AUTHENTICATED: it is not signed, so anybody may have made it",
}
GIVE_KEY = "Give the file of its passphrase (or signing key): --passphrase-file FILE"

Chunks = Generator[bytes, None, None]

# ---------------------------------------------------------------------- what people are told

language = "en"


def _(text: str) -> str:
    return SPANISH.get(text, text) if language == "es" else text


def shown(value: object) -> str:
    """Return `value` on one line, with whatever a terminal would act on escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(value)
    )


def brief(value: object) -> str:
    """Return `value` on one line that is not endless; what was composed here, and paths, whole."""
    text = str(value)
    if len(text) > SHOWN and not isinstance(value, (Path, Problem)):
        text = text[:SHOWN] + "..."
    return shown(text)


def filled(text: str, values: dict[str, object]) -> str:
    return _(text) % {name: brief(value) for name, value in values.items()}


def say(text: str, **values: object) -> None:
    sys.stdout.write(filled(text, values) + "\n")


def progress(text: str, **values: object) -> None:
    with contextlib.suppress(OSError):  # the work and its exit status do not hang on it
        sys.stderr.write(filled(text, values) + "\n")


class Problem(Exception):  # noqa: N818 - also a value: what `verify` found
    """What ended the work: an exit `status`, a text, and in `hint` the next step."""

    def __init__(self, status: int, text: str, hint: str = "", **values: object) -> None:
        super().__init__(text)
        self.status, self.text, self.hint, self.values = status, text, hint, values

    def __str__(self) -> str:
        return " ".join(filled(text, self.values) for text in (self.text, self.hint) if text)


def damaged(text: str, **values: object) -> Problem:
    return Problem(DAMAGED, text, ANOTHER, **values)


def human(size: int) -> str:
    amount, units = float(size), ["bytes", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.1f} {units[0]}".replace(".0 bytes", " bytes")


# ---------------------------------------------------------------------- keys


@functools.cache
def derive_key(secret: bytes, salt: bytes) -> bytes:
    try:
        return hashlib.scrypt(secret, salt=salt, n=2**15, r=8, p=1, dklen=32, maxmem=2**26)
    except (AttributeError, ValueError) as error:
        raise Problem(
            FAILED,
            "This Python cannot compute scrypt, so no passphrase can be used.",
            "Use a Python built with OpenSSL 1.1 or newer: that of python.org, Homebrew, Debian.",
        ) from error


def fingerprint(secret: bytes) -> str:
    return derive_key(secret, FINGERPRINT_SALT).hex()[:16]


class Keys:
    """The secrets at hand by their fingerprints, and the folder of the caller's keyring."""

    def __init__(self, files: Iterable[str], gnupghome: "str | None") -> None:
        self.secrets: dict[str, bytes] = {}
        self.gnupghome = os.path.abspath(gnupghome) if gnupghome else None
        self._derived: set[tuple[bytes, bytes]] = set()
        for file in files:
            self.add(secret_in(file), file)

    def add(self, content: bytes, file: str) -> None:
        secret = content[:-1] if content.endswith(b"\n") else content
        if not secret or len(secret) > SECRET_BYTES or any(byte < 0x20 for byte in secret):
            raise Problem(
                FAILED,
                "%(file)s is no passphrase: it must be one line without control characters.",
                "A file from Windows has a carriage return at the line's end: take it out.",
                file=Path(file),
            )
        self.secrets[fingerprint(secret)] = secret

    def derived(self, secret: bytes, salt: bytes) -> bytes:
        """Return the key of a manifest; Problem where too many projects claim one each."""
        if (secret, salt) not in self._derived and len(self._derived) >= DERIVATIONS:
            text = "Not checked: the manifests in this folder claim to be of too many projects."
            raise Problem(DAMAGED, text, "Name one backup in full, as its folder is called.")
        self._derived.add((secret, salt))
        return derive_key(secret, salt)

    def ask(self) -> None:
        """Ask for the passphrase on the terminal, once, without an echo."""
        try:
            os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        except OSError as error:
            raise Problem(
                NOTHING, "The backup needs a passphrase, and there is no terminal to ask.", GIVE_KEY
            ) from error
        self.add(getpass.getpass(_("Passphrase: ")).encode("utf-8", "surrogateescape"), "/dev/tty")

    def check_opens(self, backup: "Backup") -> None:
        """Raise Problem where no key at hand opens the backup."""
        if not backup.encryption:
            return
        if backup.symmetric and backup.key not in self.secrets:
            raise Problem(
                NOTHING,
                "No passphrase given opens %(name)s: it was made with key %(key)s.",
                GIVE_KEY,
                name=backup.name,
                key=backup.key,
            )
        if not backup.symmetric and self.gnupghome is None:
            raise Problem(
                NOTHING,
                "%(name)s is encrypted to public keys.",
                "Name the folder of a keyring that has a secret key of it: --gnupghome ~/.gnupg",
                name=backup.name,
            )


def secret_in(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            status = os.fstat(opened.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
                raise Problem(
                    FAILED,
                    "The passphrase file %(file)s can be read by others.",
                    "Run: chmod 600 %(file)s",
                    file=Path(file),
                )
            return opened.read(SECRET_BYTES + 2)
    except OSError as error:
        raise Problem(
            FAILED, "%(file)s cannot be read: %(reason)s", file=Path(file), reason=error.strerror
        ) from error


# ---------------------------------------------------------------------- manifests


class Volume(NamedTuple):
    path: str
    size: int
    sha256: str


class Artifact(NamedTuple):
    name: str
    raw_size: int
    volumes: tuple[Volume, ...]


class Backup(NamedTuple):
    """A manifest; `packs` by id. `trust` is ``authentic``, ``unknown`` (no key) or ``unsigned``."""

    name: str
    id: str
    trust: str
    order: tuple[int, datetime]
    finished: datetime
    sources: dict[str, list[Artifact]]
    facts: dict[str, dict[str, Any]]
    packs: dict[str, Artifact]
    encryption: str
    key: str
    document: dict[str, Any]

    @property
    def symmetric(self) -> bool:
        return "symmetric" in self.encryption

    def artifacts(self) -> list[Artifact]:
        return [*self.of_sources(), *self.packs.values()]

    def of_sources(self) -> list[Artifact]:
        return [artifact for artifacts in self.sources.values() for artifact in artifacts]

    def volumes(self) -> list[Volume]:
        return [volume for artifact in self.artifacts() for volume in artifact.volumes]

    def is_index(self, artifact: Artifact) -> bool:
        """Say whether it lists files whose contents are in packs."""
        named = artifact.name.endswith(INDEX_END) and "packs" in self.facts.get(artifact.name, {})
        return named or artifact.name == INDEX

    def output(self, artifact: Artifact) -> str:
        """Return the name of the file that it is unpacked to; of the folder, for an index."""
        return artifact.name.removesuffix(INDEX_END) if self.is_index(artifact) else artifact.name

    def packs_of(self, artifacts: Iterable[Artifact]) -> list[Artifact]:
        """Return the packs that the indexes among them refer to, each once."""
        wanted = {
            pack
            for artifact in artifacts
            if self.is_index(artifact)
            for pack in self.facts.get(artifact.name, {}).get("packs", self.packs)
        }
        return [pack for known, pack in self.packs.items() if known in wanted]

    def unpacked_size(self, artifact: Artifact) -> int:
        """Return how many bytes it takes once it is unpacked, as far as the manifest says."""
        files = self.facts.get(artifact.name, {}).get("bytes") if self.is_index(artifact) else 0
        return artifact.raw_size + (files if type(files) is int else 0)


def authenticated(body: bytes, tail: bytes, keys: Keys) -> str:
    """Return the trust that the manifest's ending gives it; Problem where it contradicts."""
    try:
        if len(tail) > ENDING_BYTES:
            raise ValueError(len(tail))
        stated = from_json(tail[:-3])
        algorithm, digest = stated["algorithm"], str(stated["digest"])
        expected, trust = {"algorithm": algorithm}, "unsigned"
        if algorithm == "SHA-256":
            expected["digest"] = hashlib.sha256(body).hexdigest()
        elif algorithm == "HMAC-SHA256":
            expected.update(key=str(stated["key"]), salt=str(stated["salt"]), digest=digest)
            secret, trust = keys.secrets.get(expected["key"]), "unknown"
            if secret is not None:
                # Anyone may write a salt, and each costs a scrypt: only the project's counts.
                salt = claimed_salt(body)
                expected["salt"] = salt.hex()
                if stated["salt"] != expected["salt"]:
                    raise ValueError(stated["salt"])
                key, trust = keys.derived(secret, salt), "authentic"
                expected["digest"] = hmac.new(key, body, "sha256").hexdigest()
        else:
            raise ValueError(algorithm)
    except MALFORMED as error:
        raise damaged("The manifest is cut off or damaged.") from error
    if not hmac.compare_digest(json.dumps(expected).encode() + b"\n}\n", tail):
        raise damaged("The manifest is NOT AUTHENTIC: it was changed after it was written.")
    return trust


def claimed_salt(body: bytes) -> bytes:
    """Return the salt of the project that the manifest claims to be of."""
    match = CLAIMED_PROJECT.search(body, 0, CLAIM_WITHIN)
    if match is None:
        raise ValueError("no project")
    project = text_in(from_json(match[1])).encode()
    return hashlib.sha256(b"mipyme_backup manifest of " + project).digest()[:16]


def from_json(data: bytes) -> Any:
    return json.loads(data, parse_int=number)


def number(digits: str) -> int:
    """Return the integer; ValueError for one of so many digits that computing it would last."""
    if len(digits) > DIGITS:
        raise ValueError("a number is too long")
    return int(digits)


def parsed(document: dict[str, Any], trust: str) -> Backup:
    if document["format"] != 1:
        raise Problem(
            DAMAGED,
            "The manifest has format %(format)s; this file reads format 1.",
            "Use the recover.py of the version that made the backup, or a newer one.",
            format=document["format"],
        )
    sources, facts = {}, {}
    for source in document["sources"]:
        sources[text_in(source["name"])] = [artifact_in(item) for item in source["artifacts"]]
        facts.update({name: dict(fact) for name, fact in source["facts"].items()})
    names = [artifact.name for items in sources.values() for artifact in items]
    if len({*names}) != len(names):
        raise ValueError("two artifacts of one name")
    backup = Backup(
        name=matched(SAFE_PATH, document["name"]),
        id=text_in(document["id"]),
        trust=trust,
        order=(whole(document["sequence"]), moment(document["snapshot_at"])),
        finished=moment(document["finished_at"]),
        sources=sources,
        facts=facts,
        packs=packs_in(document["packs"]),
        encryption=text_in(document["encryption"] or ""),
        key=text_in(document["key_fingerprint"] or ""),
        document=document,
    )
    for artifact in filter(backup.is_index, backup.of_sources()):
        folder_name(backup.output(artifact))
        for pack in backup.facts.get(artifact.name, {}).get("packs", ()):
            text_in(pack)
    return backup


def packs_in(documents: list[dict[str, Any]]) -> dict[str, Artifact]:
    packs = {}
    for document in documents:
        if not document["path"].startswith(POOL):
            raise ValueError("a pack outside of the pool")
        packs[document["path"].split("/")[1]] = artifact_in(document)
    if len(packs) != len(documents):
        raise ValueError("two packs of one id")
    return packs


def folder_name(name: str) -> str:
    if name.startswith(".") or name.endswith(PART):
        raise ValueError(f"{name!r} is not allowed")
    return matched(SAFE_NAME, name)


def artifact_in(document: dict[str, Any]) -> Artifact:
    path = matched(SAFE_PATH, document["path"])
    volumes = tuple(
        Volume(f"{path}.{number:05d}", whole(item["size"]), matched(SHA256, item["sha256"]))
        for number, item in enumerate(document["volumes"])
    )
    if sum(volume.size for volume in volumes) != document["stored_size"]:
        raise ValueError("the volumes do not add up")
    name = matched(SAFE_NAME, document["name"])
    if name.endswith(PART):
        raise ValueError(f"{name!r} is not allowed")
    return Artifact(name, whole(document["raw_size"]), volumes)


def matched(pattern: re.Pattern[str], value: Any) -> str:
    if not pattern.fullmatch(value):
        raise ValueError(f"{value!r} is not allowed")
    return text_in(value)


def text_in(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def whole(value: object, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= LARGEST:
        raise ValueError(f"{value!r} is no size")
    return value


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(timezone.utc)


# ---------------------------------------------------------------------- stored bytes


@contextlib.contextmanager
def stored_file(path: Path) -> Iterator[BinaryIO]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise damaged("%(path)s is missing.", path=path) from error
    except OSError as error:
        text = "%(path)s cannot be read: %(reason)s"
        raise Problem(FAILED, text, path=path, reason=error.strerror) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise damaged("%(path)s is not a regular file.", path=path)
    with open(descriptor, "rb") as file:
        yield file


class Store:
    """The folder that holds the backups; no volume of a pack is checked twice in one run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._checked: dict[Volume, Problem | None] = {}

    def backups(self, keys: Keys) -> "Iterator[tuple[str, Backup | Problem]]":
        """Yield each backup, newest first, by its name; what cannot be read comes last.

        Each manifest is read once for the order and again in its turn: all of them together may
        be larger than the memory.
        """
        if (self.root / MANIFEST).exists():
            text = "%(folder)s is one backup; the folder above it holds the backups."
            raise Problem(USAGE, text, "Give that one: --from FOLDER", folder=self.root)
        good: list[tuple[tuple[int, datetime], str]] = []
        bad: list[tuple[str, Problem]] = []
        for pattern in ("[!.]*", "monthly/[!.]*"):
            for path in sorted(self.root.glob(f"{pattern}/{MANIFEST}")):
                name = path.parent.relative_to(self.root).as_posix()
                try:
                    good.append((self.backup(name, keys).order, name))
                except Problem as problem:
                    bad.append((name, problem))
        for _order, name in sorted(good, reverse=True):
            yield name, self.read(name, keys)
        yield from bad

    def read(self, name: str, keys: Keys) -> "Backup | Problem":
        try:
            return self.backup(name, keys)
        except Problem as problem:
            return problem

    def backup(self, name: str, keys: Keys) -> Backup:
        with stored_file(self.root / name / MANIFEST) as file:
            data = file.read(MANIFEST_BYTES + 1)
        if len(data) > MANIFEST_BYTES:
            raise damaged("The manifest is too large.")
        body, _marker, tail = data.rpartition(MARKER)
        if sum(map(body.count, (b",", b"[", b"{"))) > MANIFEST_VALUES:
            raise damaged("The manifest is too large.")
        trust = authenticated(body, tail, keys)
        try:
            backup = parsed(from_json(body + b"\n}"), trust)
        except MALFORMED as error:
            raise damaged("The manifest cannot be understood: %(reason)s", reason=error) from error
        if backup.name != name:
            text = "The manifest in %(name)s is that of %(other)s."
            hint = "If the folder was renamed, give it that name again."
            raise Problem(DAMAGED, text, hint, name=name, other=backup.name)
        return backup

    def lacking(self, backup: Backup) -> int:
        """Return how many volumes are missing or of another size."""
        return sum(self._size(volume) != volume.size for volume in backup.volumes())

    def _size(self, volume: Volume) -> int:
        try:
            return (self.root / volume.path).stat().st_size
        except OSError:
            return -1

    def chunks(self, volumes: Iterable[Volume]) -> Chunks:
        """Yield the bytes of the volumes; Problem at the end of one that is not as written."""
        for volume in volumes:
            path, digest = self.root / volume.path, hashlib.sha256()
            with stored_file(path) as file:
                right = os.fstat(file.fileno()).st_size == volume.size
                while right and (data := file.read(CHUNK)):
                    digest.update(data)
                    yield data
            if not right or digest.hexdigest() != volume.sha256:
                raise damaged(
                    "%(path)s is damaged: its bytes are not those that were written.", path=path
                )

    def problems(self, volumes: Iterable[Volume]) -> Iterator[Problem]:
        """Read every stored byte, and yield what is wrong with each volume."""
        for volume in volumes:
            if volume.path.startswith(POOL):  # several backups share it
                if volume not in self._checked:
                    self._checked[volume] = self._problem(volume)
                problem = self._checked[volume]
            else:
                problem = self._problem(volume)
            if problem is not None:
                yield problem

    def _problem(self, volume: Volume) -> "Problem | None":
        try:
            for _data in self.chunks([volume]):
                pass
        except Problem as problem:
            return problem
        return None


# ---------------------------------------------------------------------- decrypt, decompress


def piped(
    argv: Sequence[str],
    chunks: Chunks,
    check: Callable[[int, str], None],
    pass_fds: Sequence[int] = (),
    env: "dict[str, str] | None" = None,
) -> Chunks:
    """Yield what the program makes of `chunks`; `check` gets its exit status and stderr."""
    with contextlib.closing(chunks), tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # noqa: S603 - no shell, and no secret in argv
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=pass_fds,
                env=env,
            )
        except OSError as error:
            text = "%(tool)s cannot be run: %(reason)s."
            raise Problem(FAILED, text, PACKAGES, tool=argv[0], reason=error.strerror) from error
        source, sink = process.stdout, process.stdin
        assert source is not None and sink is not None
        failures: list[BaseException] = []
        feeding, ended = threading.Lock(), threading.Event()

        def feed() -> None:
            with feeding:
                try:
                    for data in iter(lambda: b"" if ended.is_set() else next(chunks, b""), b""):
                        sink.write(data)
                    sink.close()
                except BrokenPipeError:  # the program went away; its status tells why
                    pass
                except BaseException as error:  # noqa: BLE001 - raised in the reading thread
                    failures.append(error)
                    process.kill()

        try:
            feeder = threading.Thread(target=feed, daemon=True)
            try:
                feeder.start()
            except RuntimeError as error:
                raise MemoryError from error
            while data := os.read(source.fileno(), CHUNK):
                yield data
            feeder.join()
            status = process.wait()
            if failures:
                raise failures[0]
            if status < 0:
                text = "%(tool)s was ended by signal %(number)s: the memory may have run out."
                raise Problem(FAILED, text, LARGER, tool=argv[0], number=-status)
            errors.seek(0)
            check(status, errors.read(CHUNK).decode(errors="replace").strip())
        finally:
            ended.set()
            process.kill()
            process.wait()
            source.close()
            # Not `join`: after an interruption of its start, it is unknown whether it runs.
            with feeding, contextlib.suppress(OSError):
                sink.close()


def decrypted(chunks: Chunks, backup: Backup, keys: Keys) -> Chunks:
    """Yield the plain bytes; gpg's own word is needed that all of them are what was encrypted."""
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="mipyme-", dir="/tmp"))
        statuses = stack.enter_context(tempfile.TemporaryFile())

        def check(status: int, said: str) -> None:
            statuses.seek(0)
            words = {word for line in statuses.read().splitlines() for word in line.split()[1:2]}
            if status == 0 and {b"DECRYPTION_OKAY", b"GOODMDC"} <= words:
                return
            if b"ENC_TO" in words and b"DECRYPTION_KEY" not in words:
                text = "The keyring has no secret key for %(name)s: %(said)s"
                raise Problem(NOTHING, text, name=backup.name, said=said)
            raise damaged("gpg could not decrypt: %(said)s", said=said)

        descriptors, environment = [statuses.fileno()], dict(os.environ)
        argv = ["gpg", "--quiet", "--status-fd", str(statuses.fileno())]
        if backup.symmetric:
            descriptors.append(secret_pipe(keys.secrets[backup.key]))
            stack.callback(os.close, descriptors[-1])
            argv += ["--homedir", home, "--no-options", "--batch", "--no-tty", "--no-autostart"]
            argv += ["--no-symkey-cache", "--pinentry-mode", "loopback"]
            argv += ["--passphrase-fd", str(descriptors[-1])]
        else:
            argv += ["--homedir", str(keys.gnupghome)]
            if sys.stderr.isatty():  # where the agent asks for the key's own passphrase
                environment.setdefault("GPG_TTY", os.ttyname(sys.stderr.fileno()))
        yield from piped([*argv, "--decrypt"], chunks, check, descriptors, environment)


def secret_pipe(secret: bytes) -> int:
    """Return the end to read of a pipe that holds the secret."""
    read_end, write_end = os.pipe()
    os.write(write_end, secret)
    os.close(write_end)
    return read_end


@functools.cache
def zstd_module() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    return None


def decompressed(chunks: Chunks) -> Chunks:
    """Yield the content of one zstd frame, by the module or the program, whichever there is."""
    zstd = zstd_module()
    return piped(["zstd", "-dcq"], chunks, bad_frame) if zstd is None else frame(zstd, chunks)


def bad_frame(status: int, said: object) -> None:
    if status:
        raise damaged("The compressed stream is damaged: %(said)s", said=said)


def frame(zstd: Any, chunks: Chunks) -> Chunks:
    decompressor = zstd.ZstdDecompressor()
    with contextlib.closing(chunks):
        for stored in chunks:
            data = stored
            while not decompressor.eof and (data or not decompressor.needs_input):
                try:
                    content = decompressor.decompress(data, max_length=CHUNK)
                except zstd.ZstdError as error:
                    bad_frame(1, error)
                data = b""
                if content:
                    yield content
            if decompressor.eof and (data or decompressor.unused_data):
                bad_frame(1, "data after its end")
    if not decompressor.eof:
        bad_frame(1, "no end")


def content(store: Store, backup: Backup, artifact: Artifact, keys: Keys) -> Chunks:
    """Yield the artifact as its source gave it, which is as long as the manifest says."""
    chunks = store.chunks(artifact.volumes)
    left = artifact.raw_size
    with contextlib.closing(
        decompressed(decrypted(chunks, backup, keys) if backup.encryption else chunks)
    ) as raw:
        for data in raw:
            left -= len(data)
            if left < 0:
                break
            yield data
    if left:
        text = "%(artifact)s holds more or less than the %(size)s that its manifest states."
        size = human(artifact.raw_size)
        raise Problem(DAMAGED, text, ANOTHER, artifact=artifact.name, size=size)


# ---------------------------------------------------------------------- media


def bad_media(path: bytes = b"") -> NoReturn:
    text = "%(index)s or one of its packs is damaged or contradicts itself."
    if path:
        text = "%(index)s or one of its packs is damaged or contradicts itself: %(where)s"
    raise damaged(text, index=INDEX, where=path[:200].decode("utf-8", "backslashreplace"))


class Media:
    """The files that one index names, in a table on disk: there may be a million.

    They are written below the open folder `root`, or only checked where that is None.
    """

    def __init__(self, root: "int | None") -> None:
        self.root = root
        self.files = self.bytes = 0
        self._folder: tuple[bytes, int] | None = None
        self._table = sqlite3.connect("", isolation_level=None)
        self._table.executescript(
            "PRAGMA journal_mode = OFF;"
            "CREATE TABLE file (path BLOB UNIQUE, size INT, mtime_ns INT, mode INT, sha256 TEXT,"
            " uid INT, gid INT);"
            "CREATE INDEX content ON file (sha256);"
            "CREATE TABLE link (path BLOB PRIMARY KEY, link BLOB, mtime_ns INT, uid INT, gid INT);"
            "CREATE TABLE folder (path BLOB PRIMARY KEY, mode INT, uid INT, gid INT); BEGIN"
        )

    def close(self) -> None:
        self._table.close()
        if self._folder is not None:
            os.close(self._folder[1])

    def read_index(self, chunks: Chunks) -> None:
        rest = b""
        with contextlib.closing(chunks):
            for data in chunks:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._add(line)
                if len(rest) > LINE_BYTES:
                    bad_media()
        query = "SELECT path FROM %s JOIN %s USING (path)"
        tables = (("file", "folder"), ("link", "folder"), ("link", "file"))
        # What lies below a link makes a folder of it, so nothing is written through one.
        twice = next(filter(None, (self._table.execute(query % t).fetchone() for t in tables)), ())
        if rest or twice:
            bad_media(*twice)

    def _add(self, line: bytes) -> None:
        try:
            if len(line) > LINE_BYTES:
                bad_media()
            fields = from_json(line)
            path = fields["path"].encode("utf-8", "surrogateescape")
            mode, ids = whole(fields["mode"]), owner(fields)
            name = path[:-1] if path.endswith(b"/") else path
            parts = name.split(b"/")
            if (
                len(name) > PATH_BYTES
                or b"\0" in name
                or len(parts) > 255
                or {b"", b".", b".."} & {*parts}
            ):
                bad_media(path)
            for end in range(1, len(parts)):
                parent = b"/".join(parts[:end])
                row = [parent, 0o755, AS_IT_IS, AS_IT_IS]
                self._table.execute(f"INSERT OR IGNORE {FOLDER_ROW}", row)
            if path.endswith(b"/") and "link" in fields:
                link = fields["link"].encode("utf-8", "surrogateescape")
                if not link or b"\0" in link or len(link) > LINK_BYTES:
                    bad_media(path)
                row = [name, link, whole(fields["mtime_ns"], -LARGEST), *ids]
                self._table.execute("INSERT INTO link VALUES (?, ?, ?, ?, ?)", row)
                return
            if path.endswith(b"/"):
                mode &= 0o1777 if ids[1] == AS_IT_IS else 0o3777  # its bit hands the group on
                self._table.execute(f"INSERT OR REPLACE {FOLDER_ROW}", [name, mode, *ids])
                return
            size, mtime_ns = whole(fields["size"]), whole(fields["mtime_ns"], -LARGEST)
            sha256 = matched(SHA256, fields["sha256"])
            row = [path, size, mtime_ns, mode & 0o777, sha256, *ids]
            self._table.execute("INSERT INTO file VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        except (*MALFORMED, sqlite3.IntegrityError):
            bad_media(line)
        self.files, self.bytes = self.files + 1, self.bytes + size

    def read_pack(self, chunks: Chunks) -> None:
        """Take from a pack what the index wants of it, each content checked by its hash."""
        with contextlib.closing(chunks):
            stream = Exactly(chunks)
            while (header := stream.take(BLOCK)).count(0) != BLOCK:
                try:
                    member = tarfile.TarInfo.frombuf(header, "ascii", "strict")
                except (tarfile.HeaderError, UnicodeDecodeError):
                    bad_media()
                regular = member.type == tarfile.REGTYPE and member.size >= 0
                if not regular or not SHA256.fullmatch(member.name):
                    bad_media()
                self._member(member.name, member.size, stream)
                stream.take(-member.size % BLOCK)
            for _padding in chunks:
                pass

    def _member(self, sha256: str, size: int, stream: "Exactly") -> None:
        query = "SELECT path FROM file WHERE sha256 = ?"
        wanted = self._table.execute(query, [sha256]).fetchone()
        if self._table.execute(f"{query} AND size != ?", [sha256, size]).fetchone():
            bad_media(wanted[0])
        digest = hashlib.sha256()
        first = self._create(wanted[0]) if wanted and self.root is not None else None
        try:
            while size:
                data = stream.take(min(CHUNK, size))
                size -= len(data)
                digest.update(data)
                if first is not None:
                    write(first, data)
            if not wanted:
                return
            if digest.hexdigest() != sha256:  # it changed while it was packed; a good one follows
                if first is not None:
                    self._remove(wanted[0])
                return
            if first is not None:
                self._settle(first, wanted[0], sha256)
        finally:
            if first is not None:
                os.close(first)
        self._table.execute("DELETE FROM file WHERE sha256 = ?", [sha256])

    def _settle(self, first: int, first_path: bytes, sha256: str) -> None:
        """Give the first file to all who want the same content, each with its time and mode."""
        query = "SELECT path, size, mtime_ns, mode, uid, gid FROM file WHERE sha256 = ?"
        for path, size, mtime_ns, mode, *ids in self._table.execute(query, [sha256]):
            other = first if path == first_path else self._create(path)
            try:
                if other != first:
                    os.lseek(first, 0, os.SEEK_SET)
                    while data := os.read(first, CHUNK):
                        write(other, data)
                os.ftruncate(other, size)
                give(other, ids, mode)
                os.utime(other, ns=(mtime_ns, mtime_ns))
            finally:
                if other != first:
                    os.close(other)

    def finish(self) -> None:
        """Raise Problem where a file was in no pack; else give the folders their modes."""
        missing = self._table.execute("SELECT path FROM file ORDER BY path").fetchmany(1)
        if missing:
            bad_media(missing[0][0])
        if self.root is None:
            return
        folders = "SELECT path, mode, uid, gid FROM folder ORDER BY path"
        for path, *_owned in self._table.execute(folders):
            self._inside(path)
        # The links come last: nothing is written once they are there.
        for path, link, mtime_ns, *ids in self._table.execute("SELECT * FROM link ORDER BY path"):
            folder, _slash, name = path.rpartition(b"/")
            try:
                os.symlink(link, name, dir_fd=self._inside(folder))
            except FileExistsError:
                bad_media(path)
            at: Any = {"dir_fd": self._inside(folder), "follow_symlinks": False}
            with contextlib.suppress(OSError):
                os.chown(name, *ids, **at)
            os.utime(name, ns=(mtime_ns, mtime_ns), **at)
        for path, mode, *ids in self._table.execute(f"{folders} DESC"):
            give(self._inside(path), ids, mode)

    def _create(self, path: bytes) -> int:
        folder, _slash, name = path.rpartition(b"/")
        try:
            return os.open(name, NEW_FILE, 0o600, dir_fd=self._inside(folder))
        except OSError as error:
            if error.errno in IN_THE_WAY:
                bad_media(path)
            raise

    def _remove(self, path: bytes) -> None:
        folder, _slash, name = path.rpartition(b"/")
        os.unlink(name, dir_fd=self._inside(folder))

    def _inside(self, path: bytes) -> int:
        """Return a descriptor of the folder, made where it is missing; no link is followed."""
        if self._folder is None or self._folder[0] != path:
            assert self.root is not None
            current = os.dup(self.root)
            for part in path.split(b"/") if path else ():
                try:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=current)
                    below = os.open(part, FOLDER, dir_fd=current)
                except OSError as error:
                    if error.errno in IN_THE_WAY:
                        bad_media(path)
                    raise
                finally:
                    os.close(current)
                current = below
            if self._folder is not None:
                os.close(self._folder[1])
            self._folder = path, current
        return self._folder[1]


def owner(fields: Any) -> "tuple[int, int]":
    """Return the user and group that root gives a file to; AS_IT_IS for what is not to change."""
    if os.geteuid() != 0 or "uid" not in fields:
        return AS_IT_IS, AS_IT_IS
    return (
        number_of(pwd.getpwnam, pwd.getpwuid, fields.get("user", ""), fields["uid"]),
        number_of(grp.getgrnam, grp.getgrgid, fields.get("group", ""), fields["gid"]),
    )


@functools.cache
def number_of(by_name: Any, by_number: Any, name: str, number: int) -> int:
    """Return the number of a name here; else the one it had, unless another name has that here."""
    if whole(number) >= 2**32 - 1 or not isinstance(name, str):
        raise ValueError
    if not name:
        return number
    with contextlib.suppress(KeyError):
        return int(by_name(name)[2])
    with contextlib.suppress(KeyError):
        by_number(number)
        return AS_IT_IS
    return number


def give(descriptor: int, ids: "Sequence[int]", mode: int) -> None:
    """Give a file its owner, where its disk can hold one, and its mode."""
    if ids != [AS_IT_IS, AS_IT_IS]:
        try:
            os.fchown(descriptor, *ids)
        except OSError:
            mode &= 0o777
    os.fchmod(descriptor, mode)


class Exactly:
    """Hands out a stream in pieces of the sizes asked for."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._rest = b""

    def take(self, size: int) -> bytes:
        parts, missing = [self._rest[:size]], size - len(self._rest)
        self._rest = self._rest[size:]
        while missing > 0:
            data = next(self._chunks, b"")
            if not data:
                bad_media()
            parts.append(data[:missing])
            self._rest, missing = data[missing:], missing - len(data)
        return b"".join(parts)


def write(descriptor: int, data: bytes) -> None:
    """Write all of `data` at the end of the file; zeros only become a hole."""
    if not data.strip(b"\0"):
        os.lseek(descriptor, len(data), os.SEEK_CUR)
        return
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_media(store: Store, backup: Backup, index: Artifact, keys: Keys, media: Media) -> None:
    """Take all files of an index into `media`, out of the packs that it refers to."""
    facts = backup.facts.get(index.name, {})
    try:
        media.read_index(content(store, backup, index, keys))
        if (media.files, media.bytes) != (facts.get("files"), facts.get("bytes")):
            bad_media()
        for pack in backup.packs_of([index]):
            media.read_pack(content(store, backup, pack, keys))
        media.finish()
    except Problem as problem:
        problem.values["index"] = index.name
        raise


# ---------------------------------------------------------------------- the commands


def list_backups(arguments: argparse.Namespace, store: Store, keys: Keys) -> int:
    status = FINE
    for name, backup in found(store, keys):
        if isinstance(backup, Problem):
            say("%(name)s\n  UNREADABLE: %(problem)s", name=name, problem=backup)
            status = DAMAGED
            continue
        volumes, lacking = backup.volumes(), store.lacking(backup)
        say("%(name)s", name=name)
        say(
            "  kind      %(kind)s  %(label)s",
            kind=backup.document.get("kind"),
            label=backup.document.get("label") or "",
        )
        say("  finished  %(time)s UTC", time=f"{backup.finished:%Y-%m-%d %H:%M:%S}")
        say(
            "  size      %(stored)s stored, %(raw)s unpacked",
            stored=human(sum(volume.size for volume in volumes)),
            raw=human(sum(artifact.raw_size for artifact in backup.artifacts())),
        )
        say("  sources   %(sources)s", sources=", ".join(backup.sources))
        if lacking:
            status = DAMAGED
            text = "  here      NOT WHOLE: %(lacking)s of %(count)s files are missing or cut off"
            say(text, lacking=lacking, count=len(volumes))
        else:
            say("  here      whole: all %(count)s files, by their sizes", count=len(volumes))
        say("  manifest  %(trust)s", trust=_(TRUST[backup.trust]))
    return status


def found(store: Store, keys: Keys) -> "Iterator[tuple[str, Backup | Problem]]":
    """Yield what the store has; Problem where that is nothing."""
    count = 0
    for count, backup in enumerate(store.backups(keys), 1):  # noqa: B007 - looked at below
        yield backup
    if not count:
        text = "There is no backup below %(folder)s: no folder in it has a manifest.json."
        hint = "Name the folder that holds the backups' folders: --from FOLDER"
        raise Problem(NOTHING, text, hint, folder=store.root)


def chosen(store: Store, keys: Keys, name: str) -> Backup:
    """Return the backup of this name, or whose id begins so."""
    name = name.rstrip("/")
    if SAFE_PATH.fullmatch(name) and (store.root / name / MANIFEST).is_file():
        return store.backup(name, keys)  # and no other manifest
    hits = [
        known
        for known, backup in found(store, keys)
        if known == name or (isinstance(backup, Backup) and name and backup.id.startswith(name))
    ]
    if not hits:
        text = "There is no backup %(name)s below %(folder)s."
        hint = "The command list shows those that there are."
        raise Problem(NOTHING, text, hint, name=name, folder=store.root)
    if len(hits) > 1:
        names = ", ".join(hits)
        text = "%(name)s is the beginning of several backups: %(names)s"
        raise Problem(NOTHING, text, "Give more of it.", name=name, names=names)
    return store.backup(hits[0], keys)


def check_trust(backup: Backup, unauthenticated: bool) -> None:
    """Raise Problem for a manifest that no key proves, unless that is accepted."""
    if backup.trust == "authentic":
        return
    if unauthenticated:
        progress("%(name)s: %(trust)s", name=backup.name, trust=_(TRUST[backup.trust]))
        return
    if backup.trust == "unknown":
        text = "%(name)s is NOT AUTHENTICATED: no key at hand proves who made it."
        raise Problem(NOTHING, text, GIVE_KEY, name=backup.name)
    raise Problem(
        DAMAGED,
        "%(name)s is NOT AUTHENTICATED: it is not signed, so anybody may have made it.",
        "If you know where it comes from and that nobody changed it: --unauthenticated",
        name=backup.name,
    )


def verify(arguments: argparse.Namespace, store: Store, keys: Keys) -> int:
    names = {name: chosen(store, keys, name).name for name in arguments.names}

    def wanted() -> "Iterator[tuple[str, Backup | Problem]]":
        if not names:
            yield from found(store, keys)
        for given, name in names.items():
            yield given, store.read(name, keys)

    asked = arguments.content and not keys.secrets
    if asked and any(isinstance(each, Backup) and each.symmetric for _name, each in wanted()):
        keys.ask()
    worst = FINE
    for name, backup in wanted():
        progress("Reading %(name)s ...", name=name)
        problems = [*problems_of(store, keys, backup, arguments)]
        worst = max([worst, *(problem.status for problem in problems)])
        if problems:
            say("%(name)s: NOT GOOD", name=name)
            for problem in problems:
                say("  %(problem)s", problem=problem)
        elif isinstance(backup, Backup):
            count = len(backup.volumes())
            say("%(name)s: good, all %(count)s files are as written", name=name, count=count)
            say("  %(trust)s", trust=_(TRUST[backup.trust]))
    return worst


def problems_of(
    store: Store, keys: Keys, backup: "Backup | Problem", arguments: argparse.Namespace
) -> Iterator[Problem]:
    """Yield what is wrong with a backup: its author, its stored bytes, what is inside them."""
    if isinstance(backup, Problem):
        yield backup
        return
    trusted = True
    try:
        if keys.secrets:
            check_trust(backup, arguments.unauthenticated)
    except Problem as problem:
        trusted = False
        yield problem
    damages = list(store.problems(backup.volumes()))
    yield from damages
    if damages or not arguments.content or not trusted:
        return
    try:
        keys.check_opens(backup)
    except Problem as problem:
        yield problem
        return
    for artifact in backup.of_sources():
        try:
            read_content(store, backup, artifact, keys)
        except Problem as problem:
            yield problem
            if problem.status != DAMAGED:  # it would be the same with each
                return


def read_content(store: Store, backup: Backup, artifact: Artifact, keys: Keys) -> None:
    """Read an artifact to its end, and where it is an index, every file that it names."""
    if backup.is_index(artifact):
        with contextlib.closing(Media(None)) as media:
            read_media(store, backup, artifact, keys, media)
        return
    for _data in content(store, backup, artifact, keys):
        pass


def unpack(arguments: argparse.Namespace, store: Store, keys: Keys) -> int:
    backup = chosen(store, keys, arguments.name)
    if backup.symmetric and not keys.secrets:
        keys.ask()
        return unpack(arguments, store, keys)
    check_trust(backup, arguments.unauthenticated)
    keys.check_opens(backup)
    sources = selected(backup, arguments.only)
    artifacts = [artifact for source in sources for artifact in backup.sources[source]]
    folder = Path(os.path.abspath(arguments.to))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        text = "%(folder)s exists and is not an empty folder."
        raise Problem(FAILED, text, "Name a new one: --to FOLDER", folder=folder)
    outputs = by_output(backup, artifacts, folder)
    progress("Checking the stored files of %(name)s ...", name=backup.name)
    read = [*artifacts, *backup.packs_of(artifacts)]
    for problem in store.problems(volume for artifact in read for volume in artifact.volumes):
        raise problem
    made = not folder.exists()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_space(folder, sum(map(backup.unpacked_size, artifacts)))
        for output, artifact in outputs.items():
            progress("Unpacking %(name)s ...", name=artifact.name)
            if os.path.lexists(output):  # on a disk that does not tell A from a
                raise taken(backup, output)
            if backup.is_index(artifact):
                unpack_media(store, backup, artifact, keys, output)
            else:
                unpack_stream(content(store, backup, artifact, keys), output)
    except BaseException:
        remove_half_written(folder)
        if made:
            with contextlib.suppress(OSError):  # what is whole in it stays
                folder.rmdir()
        raise
    tell_how_to_load(backup, sources, folder)
    return FINE


def selected(backup: Backup, only: Sequence[str]) -> list[str]:
    """Return the sources that `only` names, exactly or by the part before the colon."""
    for name in only:
        if not any(name in (source, source.partition(":")[0]) for source in backup.sources):
            text = "%(name)s holds no source %(source)s; it holds: %(known)s"
            known = ", ".join(backup.sources)
            raise Problem(USAGE, text, name=backup.name, source=name, known=known)
    return [
        source
        for source in backup.sources
        if not only or source in only or source.partition(":")[0] in only
    ]


def by_output(backup: Backup, artifacts: Iterable[Artifact], folder: Path) -> dict[Path, Artifact]:
    """Return the artifacts by the paths that they are unpacked to; Problem where two share one."""
    outputs: dict[Path, Artifact] = {}
    for artifact in artifacts:
        output = folder / backup.output(artifact)
        if output in outputs:
            raise taken(backup, output)
        outputs[output] = artifact
    return outputs


def taken(backup: Backup, output: Path) -> Problem:
    text = "Two parts of %(name)s would be unpacked to %(output)s."
    hint = "Unpack each into a folder of its own: --only SOURCE --to FOLDER"
    return Problem(FAILED, text, hint, name=backup.name, output=output)


def check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Problem(
            FAILED,
            "%(folder)s has %(free)s free, and about %(needed)s are needed.",
            "Name a folder on a larger disk, or unpack a part: --only SOURCE",
            folder=folder,
            free=human(free),
            needed=human(needed),
        )


def unpack_stream(chunks: Chunks, path: Path) -> None:
    """Write a file that has its name only once it is whole."""
    part = path.with_name(f"{path.name}{PART}")
    descriptor = os.open(part, NEW_FILE, 0o600)
    with contextlib.closing(chunks), open(descriptor, "wb") as file:
        for data in chunks:
            file.write(data)
        file.flush()
        os.fsync(descriptor)
    os.rename(part, path)


def unpack_media(store: Store, backup: Backup, index: Artifact, keys: Keys, folder: Path) -> None:
    """Write the files of an index to a folder that has its name only once all are right."""
    part = folder.with_name(f"{folder.name}{PART}")
    part.mkdir(mode=0o700)
    root = os.open(part, FOLDER)
    try:
        with contextlib.closing(Media(root)) as media:
            read_media(store, backup, index, keys, media)
        os.rename(part, folder)
    finally:
        os.close(root)


def remove_half_written(folder: Path) -> None:
    """Remove what carries the suffix of unfinished work from a folder that began empty."""
    for part in folder.glob(f"*{PART}"):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink()


# ---------------------------------------------------------------------- how to load it


def tell_how_to_load(backup: Backup, sources: Sequence[str], folder: Path) -> None:
    say("\nUnpacked to %(folder)s. What to do with it, with the site stopped:", folder=folder)
    for source in sources:
        for artifact in backup.sources[source]:
            facts = backup.facts.get(artifact.name, {})
            piece = folder / backup.output(artifact)
            say("\n%(source)s", source=source)
            lines = loading_files if backup.is_index(artifact) else loading
            for line in lines(facts, piece, source):
                sys.stdout.write(f"  {shown(line)}\n")


def loading(facts: dict[str, Any], piece: Path, source: str) -> list[str]:
    """Return the lines that tell how to load one piece, commands ready for a shell."""
    path = shlex.quote(str(piece))
    version = {"version": facts.get("version"), "major": facts.get("major")}
    if facts.get("engine") == "postgresql":
        plain = f"{str(facts.get('database'))[:SHOWN]}_recovered"
        name, target = shlex.quote(plain), shlex.quote(connection_to(plain))
        text = "# PostgreSQL %(version)s: needs a server and client tools of %(major)s or newer"
        return [
            filled(text, version),
            shlex.join(["createdb", *createdb_options(facts), "--"]) + f" {name}",
            f"pg_restore --no-owner --dbname={target} {path}",
        ]
    if facts.get("engine") == "sqlite":
        live = shlex.quote(f"/path/to/{os.path.basename(str(facts.get('database')))[:SHOWN]}")
        return [
            filled("# SQLite %(version)s: the file that the settings name in DATABASES", version),
            f"rm -f {live}-wal {live}-shm {live}-journal",
            f"cp {path} {live}",
        ]
    if source == "fixtures":
        return [
            _("# only where the database's own dump cannot be used (another engine)"),
            "python manage.py migrate",
            f"python manage.py loaddata {path}",
        ]
    return [path]


def loading_files(facts: dict[str, Any], piece: Path, source: str) -> list[str]:
    """Return the lines that tell where the files of an index belong, and how to copy them there."""
    kind, _colon, name = source.partition(":")
    text = "# into the folder that the settings name in SOURCES for %(name)s"
    if kind == "media":
        text = "# into the folder of the file storage %(name)s (in STORAGES, or of that file field)"
    if source == "media":
        text = "# into the folder that the settings name in MEDIA_ROOT"
    lines, place = [filled(text, {"name": name if kind == "media" else source})], facts.get("place")
    if place and isinstance(place, str):
        lines.append(f"{_('# where the files were:')} {place[:PATH_BYTES]}")
    live = shlex.quote(f"/path/to/{piece.name}/")
    copy = f"-mindepth 1 -maxdepth 1 -exec cp -a {{}} {live} \\;"
    return [*lines, f"find {shlex.quote(str(piece))} {copy}"]


def connection_to(database: str) -> str:
    """Return what pg_restore takes for the name: of some it would make a server's address."""
    if "=" not in database and "://" not in database:
        return database
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def createdb_options(facts: dict[str, Any]) -> list[str]:
    options = {"template": "template0", "encoding": facts.get("encoding")}
    provider = facts.get("locale_provider") or "libc"
    if provider != "libc":
        options["locale-provider"] = provider
    options.update({"lc-collate": facts.get("collate"), "lc-ctype": facts.get("ctype")})
    options.update({f"{kind}-locale": facts.get(f"{kind}_locale") for kind in ("icu", "builtin")})
    return [f"--{name}={str(value)[:SHOWN]}" for name, value in options.items() if value]


# ---------------------------------------------------------------------- the command line


def parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--from",
        dest="root",
        metavar="FOLDER",
        default=os.path.dirname(os.path.abspath(__file__)),
        help=_("the folder that holds the backups (this file's own)"),
    )
    common.add_argument(
        "--passphrase-file",
        metavar="FILE",
        action="append",
        default=[],
        help=_("a file with the passphrase, or an older one, or the signing key; repeatable"),
    )
    common.add_argument(
        "--gnupghome",
        metavar="DIR",
        help=_("decrypt with the secret keys of this keyring, where public keys encrypted"),
    )
    common.add_argument(
        "--unauthenticated",
        action="store_true",
        help=_("accept a backup though no key proves who made it"),
    )
    common.add_argument(
        "--language",
        choices=("en", "es"),
        default=language,
        help=_("the language of the messages (from LANG)"),
    )
    top = argparse.ArgumentParser(
        prog="recover.py",
        description=_(
            "List, verify and unpack backups made by mipyme_backup. Nothing else needs to be"
            " installed but gpg and zstd."
        ),
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, parents=[common], help=text, description=text)
        made.set_defaults(run=run)
        return made

    command("list", list_backups, _("show the backups, newest first"))
    checking = command("verify", verify, _("check every stored byte against the manifests"))
    checking.add_argument("names", metavar="NAME", nargs="*", help=_("default: all backups"))
    checking.add_argument(
        "--content",
        action="store_true",
        help=_("also decrypt, decompress, and check what is inside"),
    )
    unpacking = command("unpack", unpack, _("write what a backup holds into a new folder"))
    unpacking.add_argument("name", metavar="NAME", help=_("a name that list shows, or its id"))
    unpacking.add_argument(
        "--to", metavar="FOLDER", required=True, help=_("new or empty; only you can read it")
    )
    unpacking.add_argument(
        "--only",
        metavar="SOURCE",
        action="append",
        default=[],
        help=_("only this source: database:default, fixtures, media ...; repeatable"),
    )
    return top


def wanted_language(argv: Sequence[str]) -> str:
    """Return the language before the command line is parsed, for its help is a text too."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--language")
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(None):
        if chosen_one := early.parse_known_args(argv)[0].language:
            return str(chosen_one)
    names = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return "es" if next(filter(None, names), "").startswith("es") else "en"


def main(argv: Sequence[str]) -> int:
    global language
    language = wanted_language(argv)
    where = "recover.py"
    try:
        try:
            arguments = parser().parse_args(argv)
        finally:
            sys.stdout.flush()
        where = arguments.command
        zstd_module()  # now, because an interruption in the middle of an import can be lost
        keys = Keys(arguments.passphrase_file, arguments.gnupghome)
        status: int = arguments.run(arguments, Store(Path(os.path.abspath(arguments.root))), keys)
        sys.stdout.flush()
        return status
    except Problem as problem:
        progress("Error: %(problem)s", problem=problem)
        return problem.status
    except KeyboardInterrupt:
        progress("Interrupted. What was half-written has been removed.")
        return FAILED
    except BrokenPipeError:
        return FAILED
    except OSError as error:
        reason = error.strerror or error
        progress("Error: %(where)s: %(reason)s", where=error.filename or where, reason=reason)
        return FAILED
    except (sqlite3.Error, RecursionError) as error:
        progress("Error: %(where)s: %(reason)s", where=where, reason=error)
        return FAILED
    except MemoryError:
        pass  # outside of the handler, what the work held is free again
    progress("Error: %(problem)s", problem=Problem(FAILED, TOO_LITTLE, LARGER))
    return FAILED


def own_process() -> None:
    """Set what belongs to the whole process; the program does it, and no importer of this file."""
    os.umask(0o077)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # it was closed: a file of ours would get its number
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for number in STOPPED_BY:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupted)


def interrupted(_number: int, _frame: object) -> NoReturn:
    """Interrupt the work once: a second signal must not stop the removal of what is unfinished."""
    for number in STOPPED_BY:  # SIG_IGN would have Python complain of one that is here already
        signal.signal(number, lambda _number, _frame: None)
    raise KeyboardInterrupt


def fix_status() -> None:
    """Let neither a signal nor output that cannot be written change the status from now on."""
    for number in STOPPED_BY:
        signal.signal(number, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


SPANISH = {
    PACKAGES: (
        "Instálelo. Debian: apt-get install gnupg zstd; Red Hat: dnf install gnupg2 zstd;"
        " Alpine: apk add gnupg zstd; macOS: brew install gnupg zstd"
    ),
    ANOTHER: "Use otra copia de este respaldo, u otro respaldo.",
    TOO_LITTLE: "Esta máquina tiene muy poca memoria.",
    LARGER: (
        "Termine otros programas que corren en ella, o use una máquina mayor, y ejecute esto de"
        " nuevo."
    ),
    TRUST["authentic"]: "auténtico: lo hizo la clave que se dio",
    TRUST["unknown"]: "SIN AUTENTICAR: ninguna clave dada prueba quién lo hizo",
    TRUST["unsigned"]: "SIN AUTENTICAR: no está firmado, pudo hacerlo cualquiera",
    GIVE_KEY: "Dé el archivo de su contraseña (o clave de firma): --passphrase-file ARCHIVO",
    "This Python cannot compute scrypt, so no passphrase can be used.": (
        "Este Python no puede calcular scrypt, y sin eso no sirve ninguna contraseña."
    ),
    "Use a Python built with OpenSSL 1.1 or newer: that of python.org, Homebrew, Debian.": (
        "Use un Python hecho con OpenSSL 1.1 o posterior: el de python.org, Homebrew, Debian."
    ),
    "%(file)s is no passphrase: it must be one line without control characters.": (
        "%(file)s no es una contraseña: debe ser una línea sin caracteres de control."
    ),
    "A file from Windows has a carriage return at the line's end: take it out.": (
        "Un archivo de Windows tiene un retorno de carro al final de la línea: quítelo."
    ),
    "The backup needs a passphrase, and there is no terminal to ask.": (
        "El respaldo necesita una contraseña, y no hay terminal donde pedirla."
    ),
    "Passphrase: ": "Contraseña: ",
    "No passphrase given opens %(name)s: it was made with key %(key)s.": (
        "Ninguna contraseña dada abre %(name)s: se hizo con la clave %(key)s."
    ),
    "%(name)s is encrypted to public keys.": "%(name)s está cifrado para claves públicas.",
    "Name the folder of a keyring that has a secret key of it: --gnupghome ~/.gnupg": (
        "Indique la carpeta de un llavero con su clave secreta: --gnupghome ~/.gnupg"
    ),
    "The passphrase file %(file)s can be read by others.": (
        "Otros pueden leer el archivo de contraseña %(file)s."
    ),
    "Run: chmod 600 %(file)s": "Ejecute: chmod 600 %(file)s",
    "%(file)s cannot be read: %(reason)s": "No se puede leer %(file)s: %(reason)s",
    "Not checked: the manifests in this folder claim to be of too many projects.": (
        "Sin comprobar: los manifiestos de esta carpeta dicen ser de demasiados proyectos."
    ),
    "Name one backup in full, as its folder is called.": (
        "Indique un solo respaldo con el nombre completo de su carpeta."
    ),
    "The manifest is cut off or damaged.": "El manifiesto está cortado o dañado.",
    "The manifest is NOT AUTHENTIC: it was changed after it was written.": (
        "El manifiesto NO ES AUTÉNTICO: se cambió después de escrito."
    ),
    "The manifest has format %(format)s; this file reads format 1.": (
        "El manifiesto tiene el formato %(format)s; este archivo lee el formato 1."
    ),
    "Use the recover.py of the version that made the backup, or a newer one.": (
        "Use el recover.py de la versión que hizo el respaldo, o uno posterior."
    ),
    "%(path)s is missing.": "Falta %(path)s.",
    "%(path)s cannot be read: %(reason)s": "No se puede leer %(path)s: %(reason)s",
    "%(path)s is not a regular file.": "%(path)s no es un archivo regular.",
    "%(folder)s is one backup; the folder above it holds the backups.": (
        "%(folder)s es un solo respaldo; los respaldos están en la carpeta superior."
    ),
    "Give that one: --from FOLDER": "Indique esa: --from CARPETA",
    "The manifest is too large.": "El manifiesto es demasiado grande.",
    "The manifest cannot be understood: %(reason)s": (
        "El manifiesto no se puede entender: %(reason)s"
    ),
    "The manifest in %(name)s is that of %(other)s.": (
        "El manifiesto que está en %(name)s es el de %(other)s."
    ),
    "If the folder was renamed, give it that name again.": (
        "Si se cambió el nombre de la carpeta, devuélvale ese."
    ),
    "%(path)s is damaged: its bytes are not those that were written.": (
        "%(path)s está dañado: sus bytes no son los que se escribieron."
    ),
    "%(tool)s cannot be run: %(reason)s.": "No se puede ejecutar %(tool)s: %(reason)s.",
    "%(tool)s was ended by signal %(number)s: the memory may have run out.": (
        "La señal %(number)s terminó %(tool)s: puede que se haya agotado la memoria."
    ),
    "The keyring has no secret key for %(name)s: %(said)s": (
        "El llavero no tiene ninguna clave secreta para %(name)s: %(said)s"
    ),
    "gpg could not decrypt: %(said)s": "gpg no pudo descifrar: %(said)s",
    "The compressed stream is damaged: %(said)s": ("El flujo comprimido está dañado: %(said)s"),
    "%(artifact)s holds more or less than the %(size)s that its manifest states.": (
        "%(artifact)s contiene más o menos que los %(size)s que dice su manifiesto."
    ),
    "%(index)s or one of its packs is damaged or contradicts itself.": (
        "%(index)s o uno de sus paquetes está dañado o se contradice."
    ),
    "%(index)s or one of its packs is damaged or contradicts itself: %(where)s": (
        "%(index)s o uno de sus paquetes está dañado o se contradice: %(where)s"
    ),
    "%(name)s\n  UNREADABLE: %(problem)s": "%(name)s\n  ILEGIBLE: %(problem)s",
    "  kind      %(kind)s  %(label)s": "  tipo        %(kind)s  %(label)s",
    "  finished  %(time)s UTC": "  terminado   %(time)s UTC",
    "  size      %(stored)s stored, %(raw)s unpacked": (
        "  tamaño      %(stored)s guardados, %(raw)s desempacados"
    ),
    "  sources   %(sources)s": "  fuentes     %(sources)s",
    "  here      NOT WHOLE: %(lacking)s of %(count)s files are missing or cut off": (
        "  aquí        INCOMPLETO: %(lacking)s de %(count)s archivos faltan o están cortados"
    ),
    "  here      whole: all %(count)s files, by their sizes": (
        "  aquí        completo: los %(count)s archivos, según sus tamaños"
    ),
    "  manifest  %(trust)s": "  manifiesto  %(trust)s",
    "There is no backup below %(folder)s: no folder in it has a manifest.json.": (
        "No hay respaldos bajo %(folder)s: ninguna de sus carpetas tiene un manifest.json."
    ),
    "Name the folder that holds the backups' folders: --from FOLDER": (
        "Indique la carpeta que contiene las carpetas de los respaldos: --from CARPETA"
    ),
    "There is no backup %(name)s below %(folder)s.": (
        "No hay ningún respaldo %(name)s bajo %(folder)s."
    ),
    "The command list shows those that there are.": "La orden list muestra los que hay.",
    "%(name)s is the beginning of several backups: %(names)s": (
        "Varios respaldos comienzan con %(name)s: %(names)s"
    ),
    "Give more of it.": "Escriba más caracteres.",
    "%(name)s is NOT AUTHENTICATED: no key at hand proves who made it.": (
        "%(name)s está SIN AUTENTICAR: ninguna clave dada prueba quién lo hizo."
    ),
    "%(name)s is NOT AUTHENTICATED: it is not signed, so anybody may have made it.": (
        "%(name)s está SIN AUTENTICAR: no está firmado, pudo hacerlo cualquiera."
    ),
    "If you know where it comes from and that nobody changed it: --unauthenticated": (
        "Si sabe de dónde viene y que nadie lo cambió: --unauthenticated"
    ),
    "Reading %(name)s ...": "Leyendo %(name)s ...",
    "%(name)s: NOT GOOD": "%(name)s: NO ESTÁ BIEN",
    "%(name)s: good, all %(count)s files are as written": (
        "%(name)s: bien, los %(count)s archivos están como se escribieron"
    ),
    "%(folder)s exists and is not an empty folder.": (
        "%(folder)s existe y no es una carpeta vacía."
    ),
    "Name a new one: --to FOLDER": "Indique una nueva: --to CARPETA",
    "Checking the stored files of %(name)s ...": (
        "Comprobando los archivos guardados de %(name)s ..."
    ),
    "Unpacking %(name)s ...": "Desempacando %(name)s ...",
    "%(name)s holds no source %(source)s; it holds: %(known)s": (
        "%(name)s no contiene la fuente %(source)s; contiene: %(known)s"
    ),
    "Two parts of %(name)s would be unpacked to %(output)s.": (
        "Dos partes de %(name)s se desempacarían en %(output)s."
    ),
    "Unpack each into a folder of its own: --only SOURCE --to FOLDER": (
        "Desempaque cada una en su propia carpeta: --only FUENTE --to CARPETA"
    ),
    "%(folder)s has %(free)s free, and about %(needed)s are needed.": (
        "%(folder)s tiene %(free)s libres, y se necesitan unos %(needed)s."
    ),
    "Name a folder on a larger disk, or unpack a part: --only SOURCE": (
        "Indique una carpeta en un disco mayor, o desempaque una parte: --only FUENTE"
    ),
    "\nUnpacked to %(folder)s. What to do with it, with the site stopped:": (
        "\nDesempacado en %(folder)s. Qué hacer con ello, con el sitio detenido:"
    ),
    "# PostgreSQL %(version)s: needs a server and client tools of %(major)s or newer": (
        "# PostgreSQL %(version)s: necesita servidor y programas cliente %(major)s o posteriores"
    ),
    "# SQLite %(version)s: the file that the settings name in DATABASES": (
        "# SQLite %(version)s: el archivo que la configuración nombra en DATABASES"
    ),
    "# only where the database's own dump cannot be used (another engine)": (
        "# solo donde no sirve el volcado de la propia base (otro motor)"
    ),
    "# into the folder that the settings name in MEDIA_ROOT": (
        "# a la carpeta que la configuración nombra en MEDIA_ROOT"
    ),
    "# into the folder of the file storage %(name)s (in STORAGES, or of that file field)": (
        "# a la carpeta del almacenamiento %(name)s (en STORAGES, o el de ese campo de archivo)"
    ),
    "# into the folder that the settings name in SOURCES for %(name)s": (
        "# a la carpeta que la configuración nombra en SOURCES para %(name)s"
    ),
    "# where the files were:": "# donde estaban los archivos:",
    "the folder that holds the backups (this file's own)": (
        "la carpeta que contiene los respaldos (la de este archivo)"
    ),
    "a file with the passphrase, or an older one, or the signing key; repeatable": (
        "un archivo con la contraseña, una anterior o la clave de firma; se puede repetir"
    ),
    "decrypt with the secret keys of this keyring, where public keys encrypted": (
        "descifrar con las claves secretas de este llavero, si se cifró con claves públicas"
    ),
    "accept a backup though no key proves who made it": (
        "aceptar un respaldo aunque ninguna clave pruebe quién lo hizo"
    ),
    "the language of the messages (from LANG)": "el idioma de los mensajes (según LANG)",
    "List, verify and unpack backups made by mipyme_backup. Nothing else needs to be"
    " installed but gpg and zstd.": (
        "Lista, verifica y desempaca respaldos hechos por mipyme_backup. Solo hace falta"
        " tener instalados gpg y zstd."
    ),
    "show the backups, newest first": "mostrar los respaldos, primero el más nuevo",
    "check every stored byte against the manifests": (
        "comprobar cada byte guardado contra los manifiestos"
    ),
    "default: all backups": "por omisión: todos los respaldos",
    "also decrypt, decompress, and check what is inside": (
        "además descifrar, descomprimir y comprobar lo que hay dentro"
    ),
    "write what a backup holds into a new folder": (
        "escribir lo que contiene un respaldo en una carpeta nueva"
    ),
    "a name that list shows, or its id": "un nombre que muestra list, o su id",
    "new or empty; only you can read it": "nueva o vacía; solo usted podrá leerla",
    "only this source: database:default, fixtures, media ...; repeatable": (
        "solo esta fuente: database:default, fixtures, media ...; se puede repetir"
    ),
    "Error: %(problem)s": "Error: %(problem)s",
    "Error: %(where)s: %(reason)s": "Error: %(where)s: %(reason)s",
    "Interrupted. What was half-written has been removed.": (
        "Interrumpido. Lo que estaba a medio escribir se ha quitado."
    ),
}

if __name__ == "__main__":
    own_process()
    try:
        sys.exit(main(sys.argv[1:]))
    finally:
        fix_status()
