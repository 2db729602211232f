"""Builds the parts that the settings name: sources, destinations, encryption, the project."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from django.utils.module_loading import import_string

from mipyme_backup import conf
from mipyme_backup.catalog import Catalog
from mipyme_backup.destinations import Destination
from mipyme_backup.destinations.retrying import RetryingDestination
from mipyme_backup.encryption import Encryption
from mipyme_backup.encryption.passphrase import fingerprint, read_secret
from mipyme_backup.errors import ConfigurationError
from mipyme_backup.messages import _
from mipyme_backup.operations.project import Project
from mipyme_backup.policy import retention
from mipyme_backup.sources.base import ServerLock, Source
from mipyme_backup.sources.database import DatabaseSource
from mipyme_backup.sources.folder import FolderSource
from mipyme_backup.sources.media import MediaSource
from mipyme_backup.sources.media.storages import folders_of_fields

RETRY_FOR = 300.0


def saved_places() -> tuple[dict[str, Path], set[str]]:
    """Return which folders are saved, by what names them, and which aliases of ``STORAGES``.

    Raises ConfigurationError where the settings name parts that cannot be made; makes no storage,
    reads no secret and touches no destination.
    """
    sources, _destinations, _encryption = _build_parts(conf.load())
    folders: dict[str, Path] = {}
    aliases: set[str] = set()
    for name, source in sources.items():
        if isinstance(source, MediaSource):
            folders |= folders_of_fields()
            aliases |= source.aliases
        elif isinstance(source, FolderSource):
            folders[name] = source.location
    return folders, aliases


def build_project(*, retry_for: float | None = None) -> Project:
    """Build the parts that the settings name; raises ConfigurationError for what is wrong there.

    What a destination fails at is tried again for `retry_for` seconds at most, where that is less
    than the settings say.
    """
    settings = conf.load()
    sources, destinations, encryption = _build_parts(settings, retry_for)
    trusted = encryption.authentication_secrets() if encryption else {}
    if settings.signing_key_file is not None:
        secret = read_secret(settings.signing_key_file)
        trusted = {fingerprint(secret): secret, **trusted}
    return Project(
        name=settings.project,
        named_by_default=settings.named_by_default,
        state_dir=settings.state_dir,
        former_state_dir=settings.former_state_dir,
        local_folders=conf.local_folders(settings.destinations),
        sources=_split(sources),
        find_source=partial(_find, sources),
        server_locks=partial(_server_locks, sources),
        destinations=destinations,
        encryption=encryption,
        signing_key=next(iter(trusted.items()), None),
        trusted_keys=trusted,
        volume_size=settings.volume_size,
        jobs=settings.jobs,
        keep_replaced=settings.keep_replaced,
        retention=partial(_retention, settings, destinations),
        max_shrink=settings.alerts["max_shrink"],
        catalog=Catalog(),
    )


def _build_parts(
    settings: conf.Settings, retry_for: float | None = None
) -> tuple[dict[str, Source], dict[str, Destination], Encryption | None]:
    sources = _sources(settings.sources)
    destinations = {
        name: _destination(name, part, retry_for) for name, part in settings.destinations.items()
    }
    if settings.encryption is None:
        return sources, destinations, None
    encryption: Encryption = _build(settings.encryption, Encryption, "ENCRYPTION")
    encryption.host_secret_file = settings.state_dir / "host_secret"
    if not encryption.proves_author and settings.signing_key_file is None:
        raise ConfigurationError(
            _("Backups that are encrypted to public keys need a SIGNING_KEY_FILE."),
            hint=_(
                "Anybody may encrypt to a public key: the signing key proves that a backup is"
                " yours. Make one: (umask 077; openssl rand -base64 32 > FILE)"
            ),
        )
    return sources, destinations, encryption


def _sources(parts: Mapping[str, conf.Part]) -> dict[str, Source]:
    """Return the sources by their keys, which are their names."""
    sources: dict[str, Source] = {}
    for key, part in parts.items():
        source: Source = _build(part, Source, f"SOURCES.{key}")
        source.name = key
        sources[key] = source
    return sources


def _split(configured: Mapping[str, Source]) -> dict[str, Source]:
    """Return all sources by their own names; two of one name would hide each other."""
    sources: dict[str, Source] = {}
    for key, source in configured.items():
        for part in source.split():
            if part.name in sources:
                raise ConfigurationError(
                    _("SOURCES.%(key)s saves %(name)s, and so does another entry."),
                    hint=_("Keep one of them."),
                    key=key,
                    name=part.name,
                )
            sources[part.name] = part
    return sources


def _find(configured: Mapping[str, Source], name: str) -> Source | None:
    """Return the source called `name`: of its entry, or of one that was called so, or of ours."""
    key = name.partition(":")[0]
    entries = [source for source in configured.values() if source.name == key]
    entries += [source for source in configured.values() if type(source).name == key]
    entries += _ours(key)
    return next(filter(None, (entry.part(name) for entry in entries)), None)


def _ours(key: str) -> list[Source]:
    """Return the source that an installation without settings has under this key."""
    parts = {name: part for name, part in conf.default_sources().items() if name == key}
    return list(_sources(parts).values())


def _server_locks(configured: Mapping[str, Source]) -> list[ServerLock]:
    """Return the locks of all servers; of those of the project's databases where none is saved."""
    entries = [*configured.values()]
    if not any(isinstance(source, DatabaseSource) for source in entries):
        entries.append(DatabaseSource())
    return [lock for source in entries for lock in source.server_locks()]


def _destination(name: str, part: conf.Part, retry_for: float | None) -> Destination:
    built = _build(part, Destination, f"DESTINATIONS.{name}")
    built.bandwidth = part.extra.get("BANDWIDTH")
    seconds = part.extra.get("RETRY_FOR", RETRY_FOR)
    if retry_for is not None:
        seconds = min(seconds, retry_for)
    return RetryingDestination(built, name=name, seconds=seconds)


def _retention(
    settings: conf.Settings, destinations: Mapping[str, Destination], name: str
) -> retention.Policy:
    """Return the policy of a destination; whether that is remote is asked only now."""
    default = settings.remote_retention if destinations[name].remote else settings.retention
    entries = {**default, **settings.destinations[name].extra.get("RETENTION", {})}
    minimum_good = entries.pop("minimum_good")
    return retention.Policy(days=entries, minimum_good=minimum_good)


def _build(part: conf.Part, kind: type[Any], key: str) -> Any:
    try:
        backend = import_string(part.backend)
    except ImportError as error:
        raise ConfigurationError(
            _("%(key)s names the back end %(backend)s, which cannot be imported: %(reason)s"),
            key=key,
            backend=part.backend,
            reason=error,
        ) from error
    try:
        built = backend(**part.options)
    except TypeError as error:
        raise ConfigurationError(
            _("%(key)s has options that its back end does not take: %(reason)s"),
            key=key,
            reason=error,
        ) from error
    if not isinstance(built, kind):
        raise ConfigurationError(
            _("%(key)s: %(backend)s is no %(kind)s."),
            key=key,
            backend=part.backend,
            kind=kind.__name__,
        )
    return built
