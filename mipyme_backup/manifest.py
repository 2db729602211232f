"""The manifest: frozen records, their JSON, and its authentication. Format version 1.

The file is one JSON object whose last member is ``authentication``. What is authenticated is
every byte before the line that begins that member, so nothing has to be parsed, nor written
again in the same way, to check it. `docs/format.md` tells how to do so by hand.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mipyme_backup.authentication import MARKER, DeriveKey, authenticated, ending
from mipyme_backup.errors import BackupError, DamagedError
from mipyme_backup.messages import _

FORMAT = 1
FILE_NAME = "manifest.json"
MAX_BYTES = 64 * 2**20
MAX_VALUES = 2_000_000
"""Parsed values take many times the bytes that are written: so many are a quarter of a gigabyte."""
DEFAULT_ALIAS = "default"
SAFE_PATH = re.compile(r"(?!.*(^|/)\.{1,2}(/|$))[A-Za-z0-9._%+=@-]+(/[A-Za-z0-9._%+=@-]+)*")
SHA256 = re.compile(r"[0-9a-f]{64}")
IDENTIFIER = re.compile(r"[0-9A-Za-z_-]{1,32}")
KIND = re.compile(r"[a-z_]{1,16}")
LARGEST = 2**62
"""A number that any database has room for, and twice as much."""

LARGEST_SEQUENCE = 2**53
"""No project comes near, and each JSON reader takes it for a whole number."""

REASON_LENGTH = 200
SHAPES: dict[str, Any] = {
    "id": str,
    "name": str,
    "kind": str,
    "project": str,
    "sequence": int,
    "whole": bool,
    "label": str,
    "host": str,
    "versions": dict,
    "migrations": dict,
    "warnings": list,
    "encryption": str | None,
    "key_fingerprint": str | None,
}


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A stored slice: `size` in bytes, `sha256` of its bytes in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class StoredArtifact:
    """An artifact as destinations hold it.

    `name` is what the source calls it, `path` the stem of its volumes below a destination's
    root (volume i is ``<path>.<i as five digits>``), sizes in bytes, `sha256` of the stored
    stream.
    """

    name: str
    path: str
    raw_size: int
    stored_size: int
    sha256: str
    volumes: tuple[Volume, ...]

    def volume_paths(self) -> list[tuple[str, Volume]]:
        """Return each volume with its path below a destination's root."""
        return [(f"{self.path}.{i:05d}", volume) for i, volume in enumerate(self.volumes)]


@dataclass(frozen=True, kw_only=True)
class SavedSource:
    """What one source yielded; `facts` by artifact name."""

    name: str
    artifacts: tuple[StoredArtifact, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is known of one backup. Times are UTC; `slot` is the moment it stands for.

    It is `empty` where the project's tables were not there, and `whole` only where they were.
    """

    id: str
    name: str
    kind: str
    project: str
    started_at: datetime
    snapshot_at: datetime
    finished_at: datetime
    sequence: int
    sources: tuple[SavedSource, ...]
    packs: tuple[StoredArtifact, ...] = ()
    whole: bool = True
    empty: bool = False
    label: str = ""
    slot: datetime | None = None
    host: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    migrations: Mapping[str, list[str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    compression: str = "zstd"
    encryption: str | None = None
    key_fingerprint: str | None = None
    format: int = FORMAT

    def artifacts(self) -> list[StoredArtifact]:
        """Return every artifact, the shared packs included."""
        return [*(a for source in self.sources for a in source.artifacts), *self.packs]

    def source(self, name: str) -> SavedSource | None:
        """Return what the source `name` yielded, None where this backup lacks it."""
        return next((source for source in self.sources if source.name == name), None)

    def packs_of(self, source: SavedSource) -> list[StoredArtifact]:
        """Return the packs that the facts of a source of this backup refer to."""
        wanted = {pack for facts in source.facts.values() for pack in facts.get("packs", ())}
        return [pack for pack in self.packs if pack.path.split("/")[1] in wanted]

    @property
    def facts(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The facts of each source, with its name."""
        return [(source.name, source.facts) for source in self.sources]

    @property
    def raw_size(self) -> int:
        return sum(artifact.raw_size for artifact in self.artifacts())

    @property
    def stored_size(self) -> int:
        return sum(artifact.stored_size for artifact in self.artifacts())


def row_counts(sources: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, int]:
    """Return the rows by table, from the names and facts of sources.

    A table outside the default database is called ``alias: table``.
    """
    return {
        (table if alias == DEFAULT_ALIAS else f"{alias}: {table}"): rows
        for name, facts in sources
        for alias in [name.partition(":")[2]]
        for saved in facts.values()
        if isinstance(saved, Mapping) and isinstance(saved.get("tables"), Mapping)
        for table, rows in saved["tables"].items()
        if isinstance(rows, int)
    }


def media_bytes(sources: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
    """Return the bytes of all files in packs, from the names and facts of sources."""
    return sum(
        saved["bytes"]
        for _name, facts in sources
        for saved in facts.values()
        if isinstance(saved, Mapping) and "packs" in saved and isinstance(saved.get("bytes"), int)
    )


def dump(manifest: Manifest, *, key: tuple[str, bytes] | None, derive_key: DeriveKey) -> bytes:
    """Return the file's bytes, authenticated by `key` (fingerprint, secret).

    Without a key it carries a checksum, which finds damage but proves no author. Raises
    BackupError for one that is too large to be read again.
    """
    text = json.dumps(dataclasses.asdict(manifest), indent=1, default=_encode)
    body = text.encode().removesuffix(b"\n}")
    data = body + MARKER + ending(body, manifest.project, key, derive_key)
    if len(data) > MAX_BYTES or _values(body) > MAX_VALUES:
        raise BackupError(
            _("The manifest would be larger than the %(limit)d bytes that can be read again."),
            hint=_("Make VOLUME_SIZE larger, so that there are fewer volumes to list."),
            limit=MAX_BYTES,
        )
    return data


def load(
    data: bytes, *, secrets_by_key: Mapping[str, bytes], derive_key: DeriveKey, trust_needed: bool
) -> Manifest:
    """Authenticate and parse a manifest.

    Raises DamagedError for what is damaged, forged or of an unknown format, and where
    `trust_needed` for one that proves no author; KeyMissingError where the key that it names
    is not among `secrets_by_key`; and what `derive_key` raises.
    """
    if len(data) > MAX_BYTES:
        raise DamagedError(_("The manifest is larger than %(limit)d bytes."), limit=MAX_BYTES)
    body = authenticated(
        data, secrets_by_key=secrets_by_key, derive_key=derive_key, trust_needed=trust_needed
    )
    if _values(body) > MAX_VALUES:
        raise DamagedError(_("The manifest cannot be understood: it is too large."))
    try:
        return _parse(json.loads(body + b"\n}"))
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        reason = "".join(c if c.isprintable() else "?" for c in str(error)[:REASON_LENGTH])
        raise DamagedError(
            _("The manifest cannot be understood: %(reason)s"), reason=reason
        ) from error
    except RecursionError:
        raise DamagedError(_("The manifest cannot be understood: it is nested too deep.")) from None


def _values(body: bytes) -> int:
    """Return about how many values the JSON has, and no fewer."""
    return sum(map(body.count, (b",", b"[", b"{")))


def _encode(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a manifest")


def _parse(document: Any) -> Manifest:
    if document.get("format") != FORMAT:
        raise DamagedError(
            _("The manifest has format %(format)s; this version reads format %(known)d."),
            hint=_("Restore it with the version of mipyme_backup that made it, or a newer one."),
            format=ascii(document.get("format"))[:REASON_LENGTH],
            known=FORMAT,
        )
    known = {item.name for item in dataclasses.fields(Manifest)}
    values = {name: value for name, value in document.items() if name in known}
    for name, shape in SHAPES.items():
        if not isinstance(values[name], shape):
            raise TypeError(f"{name} is of type {type(values[name]).__name__}")
    if not isinstance(values.get("empty", False), bool):
        raise TypeError(f"empty is of type {type(values['empty']).__name__}")
    for name, form in (("id", IDENTIFIER), ("kind", KIND)):
        if not form.fullmatch(values[name]):
            raise ValueError(f"{name} is {values[name]!a}")
    _check_number(values["sequence"])
    if values["sequence"] > LARGEST_SEQUENCE:
        raise ValueError("the number of the backup is too large")
    for name in ("started_at", "snapshot_at", "finished_at"):
        values[name] = _moment(values[name])
    values["slot"] = _moment(values["slot"]) if values.get("slot") else None
    values["sources"] = tuple(map(_parse_source, values["sources"]))
    values["packs"] = tuple(map(_parse_artifact, values["packs"]))
    values["warnings"] = tuple(map(_text, values["warnings"]))
    _check_path(values["name"])
    manifest = Manifest(**values)
    _check_number(manifest.raw_size)
    _check_number(manifest.stored_size)
    return manifest


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    if not 1 < moment.year < 9999:  # in every time zone there is such a day
        raise ValueError(f"{text} is out of range")
    return moment.astimezone(UTC)


def _parse_source(document: dict[str, Any]) -> SavedSource:
    facts = document["facts"]
    if not isinstance(facts, dict) or not all(isinstance(saved, dict) for saved in facts.values()):
        raise TypeError("the facts of a source are no objects")
    return SavedSource(
        name=_text(document["name"]),
        artifacts=tuple(map(_parse_artifact, document["artifacts"])),
        facts=facts,
    )


def _parse_artifact(document: dict[str, Any]) -> StoredArtifact:
    volumes = tuple(Volume(size=v["size"], sha256=v["sha256"]) for v in document["volumes"])
    artifact = StoredArtifact(**{**document, "volumes": volumes})
    _text(artifact.name)
    _check_path(artifact.path)
    for sha256 in (artifact.sha256, *(volume.sha256 for volume in volumes)):
        if not SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no SHA-256")
    for size in (artifact.raw_size, artifact.stored_size, *(volume.size for volume in volumes)):
        _check_number(size)
    if sum(volume.size for volume in volumes) != artifact.stored_size:
        raise ValueError("the volumes do not add up to the artifact")
    return artifact


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is no text")
    return value


def _check_number(value: Any) -> None:
    if type(value) is not int or not 0 <= value < LARGEST:
        raise ValueError(f"{value!a} is no number of bytes or of a backup")


def _check_path(path: str) -> None:
    if not SAFE_PATH.fullmatch(path):
        raise ValueError(f"unsafe path {path!r}")
