"""Gathers what is known of the backups: from the destinations themselves, and the catalog."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path, PurePath

from mipyme_backup import journal
from mipyme_backup.destinations import Destination
from mipyme_backup.destinations.listing import Foreign
from mipyme_backup.encryption import Encryption
from mipyme_backup.errors import BackupError, DamagedError, KeyMissingError, ObjectMissingError
from mipyme_backup.manifest import Manifest, media_bytes, row_counts
from mipyme_backup.messages import _
from mipyme_backup.monitoring.databases import database_facts
from mipyme_backup.operations.ignored import tell_ignored, waiting_restores
from mipyme_backup.operations.lanes import Lanes
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.reading import Holdings, holdings
from mipyme_backup.operations.recovery_program import is_changed
from mipyme_backup.operations.sequence import newest_known
from mipyme_backup.operations.unremoved import unremoved
from mipyme_backup.places import is_on_network
from mipyme_backup.policy.left_out import lacks, missing_files
from mipyme_backup.policy.prediction import predict
from mipyme_backup.policy.status_facts import (
    COMPLETE,
    DAMAGED,
    NOTHING,
    BackupFacts,
    CopyFacts,
    DestinationFacts,
    Facts,
    IgnoredRecord,
    MisplacedState,
)

SYMMETRIC = "symmetric"
"""In the name of a method whose backups only a passphrase opens."""

RECORDED = 100
"""How many backups the catalog is asked for: only the newest decide anything."""


def _is_optional(project: Project, name: str) -> bool:
    """Say whether a restore is whole without the source of this name."""
    source = project.find_source(name)
    return source is not None and not source.restored_by_default


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look at a destination showed; `holdings` None where it could not be listed."""

    facts: DestinationFacts
    holdings: Holdings | None = None


def gather(
    project: Project, *, seconds: float, remembered: Mapping[str, Look] | None = None
) -> Facts:
    """Return the facts; a destination that does not answer within `seconds` is unreachable.

    Those that are `remembered` are not asked: their copies are as the catalog knows them. To know
    whether another takes backups, and lets us delete, a small object is written to it and deleted
    again; nothing is written where the listing has failed.
    """
    kept = remembered or {}
    looks = {**_look_around(project, seconds, kept), **kept}
    recorded = project.catalog.recorded(project.name, RECORDED)
    encryption = project.encryption
    facts = Facts(
        destinations=[
            kept[name].facts if name in kept else _described(project, looks[name])
            for name in project.destinations
        ],
        backups=_merged(project, looks, recorded or ()),
        last_run=project.catalog.last_run(project.name, running=False),
        running=project.catalog.last_run(project.name, running=True),
        catalog=recorded is not None,
        encryption=encryption.method if encryption else None,
        key_fingerprint=encryption.key_fingerprint if encryption else None,
        opens=encryption is None or encryption.opens(encryption.key_fingerprint),
        highest_known=newest_known(project),
        key_expires=_key_expires(encryption) if encryption else None,
        last_restore=project.catalog.last_restore(partial(_is_optional, project)),
        last_drill=project.catalog.last_drill(),
        ignored=_ignored(project),
        misplaced=_misplaced(project),
        unremoved=unremoved(project),
    )
    databases = database_facts(project, facts.newest_good())
    return replace(facts, predicted_restore=_predicted(facts), databases=databases)


def _ignored(project: Project) -> list[IgnoredRecord]:
    """Return what lies in `STATE_DIR` and does not count."""
    tell_ignored(project)
    return [
        IgnoredRecord(
            message=error.message,
            hint=error.hint,
            interrupted=not error.finished
            and PurePath(error.record).parts[:1] in ((), (journal.FOLDER,)),
        )
        for error in project.ignored.values()
    ]


def _misplaced(project: Project) -> MisplacedState | None:
    if not project.misplaced:
        return None
    noted = [*project.journal.entries(), *waiting_restores(project)]
    return MisplacedState(
        place=str(project.state_dir),
        reason=project.misplaced,
        restores=any(not entry.get("drill") for entry in noted),
    )


def _key_expires(encryption: Encryption) -> datetime | None:
    with contextlib.suppress(BackupError):  # the next backup tells what is wrong with its keyring
        return encryption.expires_at()
    return None


def _predicted(facts: Facts) -> timedelta | None:
    newest, drill = facts.newest_good(), facts.last_drill
    measured = [facts.last_restore, drill if drill and drill.passed else None]
    return predict(newest, facts.backups, filter(None, measured)) if newest else None


def _look_around(project: Project, seconds: float, kept: Collection[str]) -> dict[str, Look]:
    """Look at all destinations but those `kept` at once, each by a thread of its own."""
    looks: dict[str, Look] = {}
    asked = {name: one for name, one in project.destinations.items() if name not in kept}
    with Lanes(asked) as lanes:
        for name, lane in lanes.items():
            lane.submit(partial(_look, project, name, looks))
        lanes.wait(lambda: not lanes.busy, seconds)
        for name, lane in lanes.items():
            error = lane.failure or (_late(seconds) if lane.waiting else None)
            if error is not None:
                looks[name] = _cut_short(name, lane.destination, looks.get(name), error)
    return {name: looks[name] for name in asked}


def _look(project: Project, name: str, looks: dict[str, Look], destination: Destination) -> None:
    held = holdings(project, name)
    place, remote = destination.describe(), destination.remote
    here = not remote and not _is_on_network(place)
    facts = DestinationFacts(name=name, place=place, remote=remote, reachable=True, here=here)
    looks[name] = Look(facts=facts, holdings=held)
    facts = replace(facts, program_changed=is_changed(project, destination, held.backups))
    looks[name] = Look(facts=facts, holdings=held)  # it counts, should the rest not come to an end
    try:
        # First: a disk that takes nothing more is to be known for a full one.
        facts = replace(facts, free=destination.free_space(), total=destination.total_space())
        looks[name] = Look(facts=facts, holdings=held)
        destination.probe()
        may_delete, skew = destination.may_delete, destination.skew
        facts = replace(facts, writable=True, may_delete=may_delete, skew=skew)
    except BackupError as error:
        facts = replace(facts, writable=False, error=error.message, hint=error.hint)
    looks[name] = Look(facts=facts, holdings=held)


def _cut_short(name: str, destination: Destination, look: Look | None, error: BackupError) -> Look:
    """Return what is known where `error` ended the look: before, or after what it showed so far."""
    if look is not None:
        facts = replace(look.facts, writable=False, error=error.message, hint=error.hint)
        return replace(look, facts=facts)
    try:
        place, remote = destination.describe(), destination.remote
    except BackupError:
        place, remote = "-", True  # its settings are wrong, as `error` says
    return Look(
        facts=DestinationFacts(
            name=name,
            place=place,
            remote=remote,
            reachable=False,
            here=not remote and not _is_on_network(place),
            error=error.message,
            hint=error.hint,
        )
    )


def _is_on_network(place: str) -> bool:
    return os.path.isabs(place) and is_on_network(Path(place))


def _late(seconds: float) -> BackupError:
    return BackupError(
        _("it did not answer in full within %(seconds)g seconds."),
        hint=_("Look at the network and the service. A slow one needs more: --timeout SECONDS."),
        seconds=seconds,
    )


def _ours(project: Project, look: Look) -> dict[str, Manifest]:
    """Return the manifests of this project's backups there, by their ids."""
    return {
        item.manifest.id: item.manifest
        for item in (look.holdings.backups if look.holdings else ())
        if item.manifest is not None and item.manifest.project == project.name
    }


def _unreadable(look: Look) -> dict[str, BackupError]:
    """Return what is wrong with each backup whose manifest cannot be read, by its name.

    One that was deleted between the listing and the reading is not there.
    """
    found = look.holdings.backups if look.holdings else ()
    return {
        item.name: item.error
        for item in found
        if item.error is not None and not isinstance(item.error, ObjectMissingError)
    }


def _closed_keys(project: Project, manifests: Iterable[Manifest]) -> set[str]:
    """Return the fingerprints of keys that some were made with, and that the settings lack.

    Where a signing key authenticates them, their manifests can be read all the same. That a host
    which encrypts to public keys opens none of those is as it should be.
    """
    encryption = project.encryption
    own = encryption.key_fingerprint if encryption else None
    opens_own = encryption is not None and own is not None and encryption.opens(own)
    methods = {m.key_fingerprint: m.encryption for m in manifests if m.encryption is not None}
    return {
        key
        for key, method in methods.items()
        if key is not None
        and key != own
        and (opens_own or encryption is None or SYMMETRIC in (method or ""))
        and (encryption is None or not encryption.opens(key))
    }


def _described(project: Project, look: Look) -> DestinationFacts:
    ours, errors = _ours(project, look), _unreadable(look)
    need_key = [name for name, error in errors.items() if isinstance(error, KeyMissingError)]
    unreadable = {name: error for name, error in errors.items() if name not in need_key}
    closed = _closed_keys(project, ours.values())
    need_key += [one.name for one in ours.values() if one.key_fingerprint in closed]
    first = next(iter(unreadable.values()), None)
    foreign = look.holdings.foreign if look.holdings else Foreign()
    return replace(
        look.facts,
        backups=len(ours),
        highest_sequence=max((manifest.sequence for manifest in ours.values()), default=None),
        unreadable=[*unreadable],
        need_key=need_key,
        unreadable_reason=first.message if first else NOTHING,
        unreadable_hint=first.hint if first else NOTHING,
        foreign=foreign.count,
        foreign_names=foreign.names,
    )


def _merged(
    project: Project, looks: Mapping[str, Look], recorded: Sequence[BackupFacts]
) -> list[BackupFacts]:
    """Return every backup that a destination shows or the catalog knows.

    A listing tells of its own destination; the catalog of those that are away, of what a
    verification found, and of what should be there.
    """
    shown = {name: _ours(project, look) for name, look in looks.items()}
    backups = {backup.id: backup for backup in recorded}
    for manifest in (manifest for ours in shown.values() for manifest in ours.values()):
        known = backups.get(manifest.id)
        backups[manifest.id] = _of_manifest(manifest, known.copies if known else {})
    return [
        replace(
            backup,
            copies={
                name: copy
                for name, look in looks.items()
                if (copy := _copy(backup, look, shown[name].get(backup.id)))
            },
        )
        for backup in backups.values()
    ]


def _copy(backup: BackupFacts, look: Look, manifest: Manifest | None) -> CopyFacts | None:
    """Return what is known of the copy that should be, or is, where was looked."""
    recorded = backup.copies.get(look.facts.name)
    if look.holdings is None:
        return recorded
    if manifest is not None:
        if recorded is not None and recorded.status == DAMAGED:
            return recorded  # a verification read it all, and a listing shows sizes only
        if all(look.holdings.hold(artifact) for artifact in manifest.artifacts()):
            return CopyFacts(
                status=COMPLETE, verified_at=recorded.verified_at if recorded else None
            )
        return CopyFacts(status=DAMAGED, error=_("files of it are missing or cut off"))
    error = _unreadable(look).get(backup.name)
    if error is not None:
        damaged = isinstance(error, DamagedError)
        return CopyFacts(status=DAMAGED, error=str(error)) if damaged else None
    if recorded is not None and recorded.status in {COMPLETE, DAMAGED}:
        return CopyFacts(status="missing")
    return recorded


def _of_manifest(manifest: Manifest, copies: Mapping[str, CopyFacts]) -> BackupFacts:
    return BackupFacts(
        id=manifest.id,
        name=manifest.name,
        kind=manifest.kind,
        whole=manifest.whole,
        sequence=manifest.sequence,
        snapshot_at=manifest.snapshot_at,
        finished_at=manifest.finished_at,
        stored_size=manifest.stored_size,
        copies=copies,
        engines={
            source.name: f"{facts['engine']} {facts.get('version', '')}".strip()
            for source in manifest.sources
            for facts in source.facts.values()
            if "engine" in facts
        },
        data_size=sum(a.raw_size for source in manifest.sources for a in source.artifacts),
        media_size=media_bytes(manifest.facts),
        rows=row_counts(manifest.facts),
        lacks=lacks(manifest.facts),
        missing=missing_files(manifest.facts),
    )
