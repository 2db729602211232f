"""The manifest: frozen records, their JSON, and its authentication. Format version 1.

The file is one JSON object whose last member is ``authentication``. What is authenticated is
every byte before the line that begins that member, so nothing has to be parsed, nor written
again in the same way, to check it. `docs/format.md` tells how to do so by hand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mipyme_backup.errors import BackupError, DamagedError, KeyMissingError
from mipyme_backup.messages import _

FORMAT = 1
FILE_NAME = "manifest.json"
MAX_BYTES = 64 * 2**20
MARKER = b',\n "authentication": '
HMAC = "HMAC-SHA256"
CHECKSUM = "SHA-256"
DEFAULT_DATABASE = "database:default"
MEDIA = "media"
SAFE_PATH = re.compile(r"(?!.*(^|/)\.{1,2}(/|$))[A-Za-z0-9._%+=@-]+(/[A-Za-z0-9._%+=@-]+)*")
SHA256 = re.compile(r"[0-9a-f]{64}")
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

DeriveKey = Callable[[bytes, bytes], bytes]
"""From (secret, salt) to the key of the HMAC."""


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
    """All that is known of one backup. Times are UTC; `slot` is the moment it stands for."""

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
        (table if name == DEFAULT_DATABASE else f"{name.partition(':')[2]}: {table}"): rows
        for name, facts in sources
        for saved in facts.values()
        if isinstance(saved, Mapping) and isinstance(saved.get("tables"), Mapping)
        for table, rows in saved["tables"].items()
        if isinstance(rows, int)
    }


def media_bytes(sources: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
    """Return the bytes of all media files, from the names and facts of sources."""
    return sum(
        saved["bytes"]
        for name, facts in sources
        if name == MEDIA
        for saved in facts.values()
        if isinstance(saved, Mapping) and isinstance(saved.get("bytes"), int)
    )


def dump(manifest: Manifest, *, key: tuple[str, bytes] | None, derive_key: DeriveKey) -> bytes:
    """Return the file's bytes, authenticated by `key` (fingerprint, secret).

    Without a key it carries a checksum, which finds damage but proves no author. Raises
    BackupError for one that is too large to be read again.
    """
    text = json.dumps(dataclasses.asdict(manifest), indent=1, default=_encode)
    body = text.encode().removesuffix(b"\n}")
    data = body + MARKER + _ending(_authenticate(body, manifest.project, key, derive_key))
    if len(data) > MAX_BYTES:
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
    is not among `secrets_by_key`.
    """
    if len(data) > MAX_BYTES:
        raise DamagedError(_("The manifest is larger than %(limit)d bytes."), limit=MAX_BYTES)
    body, marker, tail = data.rpartition(MARKER)
    try:
        authentication = json.loads(tail.removesuffix(b"\n}\n")) if marker else None
    except (ValueError, RecursionError):
        authentication = None
    if not isinstance(authentication, dict):
        raise DamagedError(
            _("The manifest is cut off or damaged."),
            hint=_("Use another copy of this backup, or another backup."),
        )
    expected = _expected(body, authentication, secrets_by_key, derive_key, trust_needed)
    # All of the ending is compared, so that no byte of the file can change unseen.
    if not hmac.compare_digest(_ending(expected), tail):
        raise DamagedError(
            _("The manifest is not authentic: it was changed after it was written."),
            hint=_("Use another copy of this backup, or another backup."),
        )
    try:
        return _parse(json.loads(body + b"\n}"))
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise DamagedError(
            _("The manifest cannot be understood: %(reason)s"), reason=error
        ) from error
    except RecursionError:
        raise DamagedError(_("The manifest cannot be understood: it is nested too deep.")) from None


def _ending(authentication: Mapping[str, str]) -> bytes:
    return json.dumps(authentication).encode() + b"\n}\n"


def _authenticate(
    body: bytes, project: str, key: tuple[str, bytes] | None, derive_key: DeriveKey
) -> dict[str, str]:
    if key is None:
        return {"algorithm": CHECKSUM, "digest": hashlib.sha256(body).hexdigest()}
    # One salt a project: a thousand manifests then cost one scrypt to read, not a thousand.
    salt = hashlib.sha256(b"mipyme_backup manifest of " + project.encode()).digest()[:16]
    return _signed(body, key, salt, derive_key)


def _signed(
    body: bytes, key: tuple[str, bytes], salt: bytes, derive_key: DeriveKey
) -> dict[str, str]:
    digest = hmac.digest(derive_key(key[1], salt), body, "sha256").hex()
    return {"algorithm": HMAC, "key": key[0], "salt": salt.hex(), "digest": digest}


def _expected(
    body: bytes,
    authentication: Mapping[str, Any],
    secrets_by_key: Mapping[str, bytes],
    derive_key: DeriveKey,
    trust_needed: bool,
) -> dict[str, str]:
    """Return the authentication that `body` must carry; raise for what cannot be trusted."""
    algorithm = authentication.get("algorithm")
    if algorithm == CHECKSUM:
        if trust_needed:
            raise DamagedError(
                _("The manifest is not signed, and the settings need it to be (ENCRYPTION)."),
                hint=_("It was made without encryption, or by somebody else."),
            )
        return {"algorithm": CHECKSUM, "digest": hashlib.sha256(body).hexdigest()}
    if algorithm == HMAC:
        key = str(authentication.get("key"))
        if key not in secrets_by_key:
            raise KeyMissingError(
                _("No passphrase at hand authenticates this backup: it was made with key %(key)s."),
                hint=_("Name the file of that passphrase in the settings (ENCRYPTION, OPTIONS)."),
                key=key,
            )
        try:
            salt = bytes.fromhex(str(authentication.get("salt")))
        except ValueError:
            salt = b""
        return _signed(body, (key, secrets_by_key[key]), salt, derive_key)
    raise DamagedError(_("The manifest names an unknown way of authentication."))


def _encode(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a manifest")


def _parse(document: Any) -> Manifest:
    if document.get("format") != FORMAT:
        raise DamagedError(
            _("The manifest has format %(format)s; this version reads format %(known)d."),
            hint=_("Restore it with the version of mipyme_backup that made it, or a newer one."),
            format=document.get("format"),
            known=FORMAT,
        )
    known = {item.name for item in dataclasses.fields(Manifest)}
    values = {name: value for name, value in document.items() if name in known}
    for name, shape in SHAPES.items():
        if not isinstance(values[name], shape):
            raise TypeError(f"{name} is {values[name]!r}")
    for name in ("started_at", "snapshot_at", "finished_at"):
        values[name] = _moment(values[name])
    values["slot"] = _moment(values["slot"]) if values.get("slot") else None
    values["sources"] = tuple(
        SavedSource(
            name=source["name"],
            artifacts=tuple(map(_parse_artifact, source["artifacts"])),
            facts=source["facts"],
        )
        for source in values["sources"]
    )
    values["packs"] = tuple(map(_parse_artifact, values["packs"]))
    values["warnings"] = tuple(values["warnings"])
    _check_path(values["name"])
    return Manifest(**values)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment.astimezone(UTC)


def _parse_artifact(document: dict[str, Any]) -> StoredArtifact:
    volumes = tuple(Volume(size=v["size"], sha256=v["sha256"]) for v in document["volumes"])
    artifact = StoredArtifact(**{**document, "volumes": volumes})
    _check_path(artifact.path)
    for sha256 in (artifact.sha256, *(volume.sha256 for volume in volumes)):
        if not SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no SHA-256")
    for size in (artifact.raw_size, artifact.stored_size, *(volume.size for volume in volumes)):
        if type(size) is not int or size < 0:
            raise ValueError(f"{size!r} is no size")
    if sum(volume.size for volume in volumes) != artifact.stored_size:
        raise ValueError("the volumes do not add up to the artifact")
    return artifact


def _check_path(path: str) -> None:
    if not SAFE_PATH.fullmatch(path):
        raise ValueError(f"unsafe path {path!r}")
