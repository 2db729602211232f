"""Restore: choose, plan, load beside, check, safety backup, swap; and its undo."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connections
from django.db.migrations.loader import MigrationLoader

from mipyme_backup import signals
from mipyme_backup.errors import (
    BackupError,
    DamagedError,
    NoBackupError,
    ObjectMissingError,
    RestoreError,
    UsageError,
)
from mipyme_backup.journal import Entry
from mipyme_backup.manifest import Manifest, SavedSource
from mipyme_backup.messages import Message, _
from mipyme_backup.operations import backup
from mipyme_backup.operations.choosing import Choice, all_backups, choose, selected
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.reading import open_artifact
from mipyme_backup.operations.recovery import (
    recover,
    remove_expired,
    swap_all,
    target_of,
    undo_targets,
)
from mipyme_backup.operations.writing import new_id, sweep_unfinished
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Target
from mipyme_backup.sources.database import PREFIX
from mipyme_backup.sources.fixtures import FixturesTarget
from mipyme_backup.sources.media import MediaTarget
from mipyme_backup.streams.digest import Measured


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for: an `identifier`, or the newest (`at` a moment); names of sources in `only`."""

    identifier: str | None = None
    at: datetime | None = None
    destination: str | None = None
    only: Sequence[str] = ()
    safety_backup: bool = True
    migrate: bool = False
    to_database: str | None = None
    to_media: Path | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether the live data stays as it is."""
        return self.to_database is not None or self.to_media is not None


@dataclass(frozen=True, kw_only=True)
class RestoreResult:
    """What was done, or (status ``planned``) would be; `seconds` and `downtime` are measured."""

    id: str
    status: str
    backup_id: str
    backup_name: str
    plan: tuple[str, ...] = ()
    safety_backup: str | None = None
    replaced: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    downtime_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "status": self.status,
            "backup": {"id": self.backup_id, "name": self.backup_name},
            "plan": list(self.plan),
            "safety_backup": self.safety_backup,
            "replaced": dict(self.replaced),
            "seconds": round(self.seconds, 3),
            "downtime_seconds": round(self.downtime_seconds, 3),
        }


def plan(project: Project, request: Request) -> RestoreResult:
    """Say what a restore would do; changes nothing. Raises what would forbid it."""
    choice = _choose(project, request)
    restore_id = new_id()
    targets = _targets(project, request, choice.manifest, restore_id)
    return RestoreResult(
        id=restore_id,
        status="planned",
        backup_id=choice.manifest.id,
        backup_name=choice.manifest.name,
        plan=tuple(str(line) for line in _plan(project, request, choice, targets)),
    )


def run(project: Project, request: Request, progress: Progress) -> RestoreResult:
    """Restore one backup. Live data is as it was unless this returns."""
    started = time.monotonic()
    with project.lock("restore"):
        recover(project)
        for backup_id in sweep_unfinished(project):
            project.catalog.abandon(backup_id)
        project.sweep_work()
        remove_expired(project)
        choice = _choose(project, request)
        manifest, restore_id = choice.manifest, new_id()
        targets = _targets(project, request, manifest, restore_id)
        lines = _plan(project, request, choice, targets)
        signals.pre_restore.send_robust(sender=run, restore_id=restore_id, backup_id=manifest.id)
        project.catalog.start_restore(restore_id, manifest, [s.name for s, _t in targets])
        entry = _entry(restore_id, manifest, targets, elsewhere=request.elsewhere)
        project.journal.write(entry)
        try:
            _load(project, choice, targets, progress)
            _check(manifest, targets, progress)
            if not request.elsewhere:
                entry["safety_backup"] = _safety_backup(project, request, targets, progress)
                _rebuild_catalog(project, targets)
        except BaseException as error:
            for _source, target in targets:
                target.discard()
            project.journal.remove(entry)
            project.catalog.end_restore(restore_id, "failed", str(error))
            raise
        downtime = _swap(project, entry, targets, progress)
        if request.migrate and not request.elsewhere:
            progress.step(Message(_("Running migrate")))
            call_command("migrate", interactive=False, verbosity=0)
        project.catalog.end_restore(
            restore_id, "complete", downtime=downtime, safety=entry["safety_backup"]
        )
        signals.post_restore.send_robust(sender=run, restore_id=restore_id, backup_id=manifest.id)
    return RestoreResult(
        id=restore_id,
        status="complete",
        backup_id=manifest.id,
        backup_name=manifest.name,
        plan=tuple(str(line) for line in lines),
        safety_backup=entry["safety_backup"],
        replaced={} if request.elsewhere else _replaced_names(targets),
        seconds=time.monotonic() - started,
        downtime_seconds=downtime,
    )


def undo(project: Project, progress: Progress) -> RestoreResult:
    """Swap back what the last restore replaced; raises NoBackupError where it is gone."""
    started = time.monotonic()
    with project.lock("restore"):
        recover(project)
        remove_expired(project)
        entry = project.journal.newest_done()
        if entry is None:
            raise NoBackupError(
                _("There is no restore to undo: nothing that one replaced is kept any more."),
                hint=_("Restore the safety backup instead; list_backups shows it."),
            )
        progress.step(Message(_("Swapping back what the restore %(id)s replaced"), {"id": entry["id"]}))
        connections.close_all()
        entry["phase"], entry["finished_at"] = "undoing", None
        project.journal.write(entry)
        undo_targets(project, entry, [target_of(project, state) for state in entry["targets"]])
    return RestoreResult(
        id=entry["id"],
        status="undone",
        backup_id=entry["backup"],
        backup_name="",
        safety_backup=entry["safety_backup"],
        seconds=time.monotonic() - started,
    )


Targets = Sequence[tuple[SavedSource, Target]]


def _choose(project: Project, request: Request) -> Choice:
    return choose(
        project,
        identifier=request.identifier,
        at=request.at,
        destination=request.destination,
        only=request.only,
    )


def _targets(
    project: Project, request: Request, manifest: Manifest, restore_id: str
) -> list[tuple[SavedSource, Target]]:
    targets = [
        (source, _target(project, request, source, restore_id))
        for source in _sources(request, manifest)
    ]
    # Last, because what was merged cannot be swapped back when a later swap fails.
    return sorted(targets, key=lambda pair: isinstance(pair[1], FixturesTarget))


def _sources(request: Request, manifest: Manifest) -> list[SavedSource]:
    """Return what is restored: fixtures only when named, and only what has a place elsewhere."""
    names = list(request.only)
    if not names and request.elsewhere:
        names = ["database"] if request.to_database else []
        names += ["media"] if request.to_media else []
    wanted = {found for name in names for found in selected(manifest, name)}
    for name in names:
        if not selected(manifest, name):
            raise NoBackupError(
                _("The backup %(backup)s holds no %(name)s."),
                hint=_("It holds: %(known)s"),
                backup=manifest.name,
                name=name,
                known=", ".join(source.name for source in manifest.sources),
            )
    chosen = [
        source
        for source in manifest.sources
        if (source.name in wanted if names else source.name != "fixtures")
    ]
    databases = [source for source in chosen if source.name.startswith(PREFIX)]
    if request.to_database and len(databases) != 1:
        raise UsageError(
            _("--to-database takes one database, and this backup holds %(count)d."),
            hint=_("Name it: --only database:ALIAS"),
            count=len(databases),
        )
    return chosen


def _target(project: Project, request: Request, source: SavedSource, restore_id: str) -> Target:
    if source.name.startswith(PREFIX):
        facts = next(iter(source.facts.values()))
        return project.databases.target(
            source.name.removeprefix(PREFIX),
            restore_id=restore_id,
            facts=facts,
            raw_size=source.artifacts[0].raw_size,
            to_database=request.to_database,
        )
    if source.name == "media":
        return MediaTarget.prepare(
            location=_media_root(project, request),
            restore_id=restore_id,
            to_directory=request.to_media,
        )
    return FixturesTarget.prepare(alias="default")


def _media_root(project: Project, request: Request) -> Path:
    location = request.to_media or project.media.location
    if location is None:
        raise RestoreError(
            _("The backup holds media, and the settings have no MEDIA_ROOT."),
            hint=_("Set it, or name a folder with --to-media."),
        )
    return location


def _plan(
    project: Project, request: Request, choice: Choice, targets: Targets
) -> list[Message]:
    manifest = choice.manifest
    lines = [
        Message(
            _("Backup %(name)s of %(moment)s, from %(destinations)s"),
            {
                "name": manifest.name,
                "moment": f"{manifest.snapshot_at:%Y-%m-%d %H:%M:%S} UTC",
                "destinations": ", ".join(choice.destinations),
            },
        )
    ]
    for _source, target in targets:
        lines += target.plan()
    lines += _migrations(manifest, targets, migrate=request.migrate)
    if not request.elsewhere:
        if request.safety_backup:
            lines.append(Message(_("The live data is saved first, as a safety backup.")))
        else:
            lines.append(Message(_("NO safety backup of the live data is taken.")))
        lines.append(
            Message(
                _("What is replaced is kept for %(hours)d hours: restore --undo swaps it back."),
                {"hours": project.keep_replaced / timedelta(hours=1)},
            )
        )
    return lines


def _migrations(manifest: Manifest, targets: Targets, *, migrate: bool) -> list[Message]:
    """Refuse a database newer than the code; name `migrate` where it is older."""
    if not any(source.name.startswith(PREFIX) for source, _target in targets):
        return []
    loader = MigrationLoader(None, load=False)
    loader.load_disk()
    on_disk: dict[str, set[str]] = {}
    for app, name in loader.disk_migrations:
        on_disk.setdefault(app, set()).add(name)
    applied = {key for keys in manifest.migrations.values() for key in keys}
    for key in sorted(applied):
        app, _dot, name = key.partition(".")
        if app in on_disk and name not in on_disk[app] and name > max(on_disk[app]):
            raise RestoreError(
                _("The backup is newer than the code: it has the migration %(name)s."),
                hint=_("Deploy the code that it was made with, then restore."),
                name=key,
            )
    pending = [
        f"{app}.{name}"
        for app, names in sorted(on_disk.items())
        for name in sorted(names)
        if manifest.migrations and f"{app}.{name}" not in applied and not _is_squash(loader, app, name)
    ]
    if not pending:
        return []
    text = (
        _("%(count)d migrations are newer than the backup and will be run.")
        if migrate
        else _("%(count)d migrations are newer than the backup: run migrate afterwards.")
    )
    return [Message(text, {"count": len(pending)})]


def _is_squash(loader: MigrationLoader, app: str, name: str) -> bool:
    return bool(loader.disk_migrations[app, name].replaces)


def _entry(
    restore_id: str, manifest: Manifest, targets: Targets, *, elsewhere: bool
) -> Entry:
    return {
        "id": restore_id,
        "backup": manifest.id,
        "phase": "loading",
        "elsewhere": elsewhere,
        "targets": [t.state for _s, t in targets if not isinstance(t, FixturesTarget)],
        "safety_backup": None,
        "finished_at": None,
    }


def _load(project: Project, choice: Choice, targets: Targets, progress: Progress) -> None:
    """Load from the first copy; where that is damaged, begin again from the next."""
    failure: BackupError | None = None
    for name in choice.destinations:
        try:
            for source, target in targets:
                progress.step(
                    Message(_("Loading %(source)s from %(destination)s"),
                            {"source": source.name, "destination": name}),
                    _raw_size(choice.manifest, source),
                )
                target.load(_openers(project, name, choice.manifest, source, progress))
        except (DamagedError, ObjectMissingError) as error:
            failure = error
            for _source, target in targets:
                target.discard()
        else:
            return
    assert failure is not None
    if isinstance(failure, ObjectMissingError):
        raise DamagedError(str(failure).replace("%", "%%")) from failure
    raise failure


def _raw_size(manifest: Manifest, source: SavedSource) -> int:
    packs = manifest.packs if source.name == "media" else ()
    return sum(artifact.raw_size for artifact in (*source.artifacts, *packs))


def _openers(
    project: Project, name: str, manifest: Manifest, source: SavedSource, progress: Progress
) -> dict[str, Callable[[], Reader]]:
    destination = project.destinations[name]
    artifacts = {artifact.name: artifact for artifact in source.artifacts}
    if source.name == "media":
        artifacts |= {f"pool/{pack.path.split('/')[1]}": pack for pack in manifest.packs}

    def opened(key: str) -> Reader:
        reader = open_artifact(project, destination, manifest, artifacts[key])
        return Measured(reader, hashing=False, on_bytes=progress.advance)

    return {key: partial(opened, key) for key in artifacts}


def _check(manifest: Manifest, targets: Targets, progress: Progress) -> None:
    progress.step(Message(_("Checking what was loaded against the manifest")))
    problems = [
        str(problem)
        for source, target in targets
        for problem in target.check(_facts(source))
    ]
    if problems:
        raise RestoreError(
            _("What was loaded is not what %(name)s states: %(problems)s"),
            hint=_("Live data is untouched. Restore another backup, and report this one."),
            name=manifest.name,
            problems="; ".join(problems[:10]),
        )


def _facts(source: SavedSource) -> Mapping[str, Any]:
    """Return the facts of the source's main artifact: a database's dump, the media's index."""
    return next(iter(source.facts.values()), {})


def _safety_backup(
    project: Project, request: Request, targets: Targets, progress: Progress
) -> str | None:
    if not request.safety_backup:
        return None
    live = {
        f"{PREFIX}{target.state['alias']}" if isinstance(target, FixturesTarget) else source.name
        for source, target in targets
        if isinstance(target, FixturesTarget) or target.has_live()
    }
    if not live:
        progress.step(Message(_("There is no live data to save: no safety backup.")))
        return None
    try:
        taken = backup.take(project, backup.Request(kind="safety", only=sorted(live)), progress)
    except BackupError as error:
        raise RestoreError(
            _("The safety backup failed, so nothing was restored: %(reason)s"),
            hint=_("Mend that, or restore without one: --no-safety-backup"),
            reason=error,
        ) from error
    return taken.manifest.name


def _rebuild_catalog(project: Project, targets: Targets) -> None:
    """Give the database that will be live the whole history: manifests and the live catalog."""
    for source, target in targets:
        settings = target.side_settings()
        if source.name == f"{PREFIX}default" and settings is not None:
            with _registered(settings) as using:
                project.catalog.copy_history(using)
                project.catalog.sync(all_backups(project), using=using)


@contextlib.contextmanager
def _registered(settings: dict[str, Any]) -> Iterator[str]:
    """Register a database for the block, under an alias that Django's ORM can use."""
    alias = "mipyme_backup_side"
    connections.settings[alias] = {**connections.settings["default"], **settings}
    try:
        yield alias
    finally:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]


def _replaced_names(targets: Targets) -> dict[str, str]:
    """Return where the replaced data of each source is kept, fixtures apart: they are merged."""
    return {
        source.name: str(target.state.get("before") or target.state["replaced"])
        for source, target in targets
        if not isinstance(target, FixturesTarget)
    }


def _swap(project: Project, entry: Entry, targets: Targets, progress: Progress) -> float:
    """Cut over; from the journal's mark on, a later run finishes what a crash interrupts."""
    progress.step(Message(_("Cutting over")))
    connections.close_all()
    entry["phase"] = "swapping"
    project.journal.write(entry)
    return swap_all(project, entry, [target for _source, target in targets])
