"""The only writer of the catalog's models.

The catalog is a cache and a history: where its tables are absent, older than the code, or the
database is away, every method warns once and does nothing, because no backup and no restore
may depend on it. ``list_backups --sync`` catches up.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from django.apps import apps
from django.db import Error, connections, transaction
from django.db.models import Max, Min, Model, Q
from django.db.models.base import ModelState
from django.utils.connection import ConnectionDoesNotExist

from mipyme_backup.errors import BackupError, CatalogError, SourceError
from mipyme_backup.manifest import Manifest, media_bytes, row_counts
from mipyme_backup.messages import Message, _
from mipyme_backup.models import Backup, ChecklistEntry, Copy, Drill, Look, Restore
from mipyme_backup.policy.checklist import Entry
from mipyme_backup.policy.retention import Run
from mipyme_backup.policy.status_facts import (
    BackupFacts,
    CopyFacts,
    DrillFacts,
    RestoreFacts,
    RunFacts,
)
from mipyme_backup.sources import sqlite
from mipyme_backup.translation import warn

if TYPE_CHECKING:
    from mipyme_backup.operations.drill import DrillResult
    from mipyme_backup.operations.reading import Found
    from mipyme_backup.operations.verify import Level, Verified

logger = logging.getLogger("mipyme_backup")
P = ParamSpec("P")
R = TypeVar("R")

OTHERS: tuple[type[Restore] | type[Drill] | type[Look] | type[ChecklistEntry], ...] = (
    Restore,
    Drill,
    Look,
    ChecklistEntry,
)
"""What stands for itself, and is no cache of what the destinations hold."""

UNAVAILABLE = (Error, ConnectionDoesNotExist, SourceError)


@dataclass(frozen=True, kw_only=True)
class History:
    """Rows of the catalog, out of a database that is about to be replaced.

    `others` are those of `OTHERS`, in its order, of the tables that were there.
    """

    backups: Sequence[Backup] = ()
    copies: Sequence[Copy] = ()
    others: Sequence[Restore | Drill | Look | ChecklistEntry] = ()


def _optional(method: Callable[P, None]) -> Callable[P, None]:
    """Make a failing catalog a warning: the manifests are the truth."""

    @functools.wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            # On a bare host there is no default database yet, only the one beside.
            using = str(kwargs.get("using", "default"))
            _check_exists(using)
            with transaction.atomic(using=using):
                method(*args, **kwargs)
        except UNAVAILABLE as error:
            catalog = args[0]
            assert isinstance(catalog, Catalog)
            catalog.warn(error)

    return guarded


def _reading(nothing: Callable[[], Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a method return `nothing()` where the catalog cannot be read."""

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(method)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                _check_exists("default")
                return method(*args, **kwargs)
            except UNAVAILABLE as error:
                catalog = args[0]
                assert isinstance(catalog, Catalog)
                catalog.warn(error)
                unknown: R = nothing()
                return unknown

        return guarded

    return decorate


@contextmanager
def needed() -> Iterator[None]:
    """Raise CatalogError where the catalog, which the block uses, is away or older than the code.

    Within a transaction, that goes on as if nothing had been asked.
    """
    try:
        _check_exists("default")
        inside = connections["default"].in_atomic_block
        with transaction.atomic() if inside else nullcontext():
            yield
    except UNAVAILABLE as error:
        raise CatalogError(
            _("The catalog cannot be read: %(reason)s"),
            hint=_("Look at the database, and run manage.py migrate."),
            reason=str(error).partition("\n")[0],
        ) from error


def _check_exists(using: str) -> None:
    """Raise SourceError for an SQLite file that is missing: to connect would make an empty one."""
    connection = connections[using]
    if connection.vendor == "sqlite":
        sqlite.preflight(using, connection.settings_dict)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the catalog says of the past: the newest run, and the copies that should be there.

    `copies` are the backups' names by id, by destination; `damaged` are pairs of backup id and
    destination, `pinned` backup ids.
    """

    newest: Run | None
    copies: Mapping[str, Mapping[str, str]]
    damaged: frozenset[tuple[str, str]]
    pinned: frozenset[str]


class Catalog:
    """Writes and reads the history of runs."""

    def __init__(self) -> None:
        self._warned = False

    @property
    def tables(self) -> frozenset[str]:
        """The names of the catalog's own tables, whose rows no dump holds."""
        models = apps.get_app_config("mipyme_backup").get_models()
        return frozenset(model._meta.db_table for model in models)

    def warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            text = _(
                "Going on without the catalog (%(reason)s): after migrate, list_backups --sync"
                " catches up."
            )
            warn(logger, text, reason=str(error).partition("\n")[0])

    @_optional
    def start(
        self,
        backup_id: str,
        name: str,
        kind: str,
        label: str,
        slot: datetime | None,
        started_at: datetime,
    ) -> None:
        Backup.objects.create(
            backup_id=backup_id,
            name=name,
            kind=kind,
            label=label,
            slot=slot,
            status=Backup.Status.RUNNING,
            started_at=started_at,
        )

    @_optional
    def finish(
        self, manifest: Manifest, sha256: str, copies: Mapping[str, BackupError | None]
    ) -> None:
        _record(manifest, sha256, {name: error is None for name, error in copies.items()}, None)
        for name, error in copies.items():
            if error is not None:
                Copy.objects.filter(backup__backup_id=manifest.id, destination=name).update(
                    error=str(error)
                )

    @_optional
    def fail(self, backup_id: str, error: str) -> None:
        Backup.objects.filter(backup_id=backup_id, status=Backup.Status.RUNNING).update(
            status=Backup.Status.FAILED, finished_at=datetime.now(UTC), error=error
        )

    @_optional
    def abandon_running(self, ended: Mapping[str, str]) -> None:
        """Mark the runs whose processes died. Call it with the lock held: nothing else runs.

        `ended` are the restores that came to their end all the same, with their status.
        """
        now = datetime.now(UTC)
        Backup.objects.filter(status=Backup.Status.RUNNING).update(
            status=Backup.Status.ABANDONED, finished_at=now
        )
        for restore in Restore.objects.filter(status=Restore.Status.RUNNING):
            restore.status = ended.get(restore.restore_id, Restore.Status.ABANDONED)
            restore.finished_at = now
            restore.save(update_fields=("status", "finished_at"))

    @_reading(bool)
    def has_running(self) -> bool:
        """Say whether a run is noted as running; False where the catalog cannot be read."""
        models: tuple[type[Backup] | type[Restore], ...] = (Backup, Restore)
        return any(
            model._default_manager.filter(status=model.Status.RUNNING).exists() for model in models
        )

    @_optional
    def verified(self, results: Iterable[Verified], level: Level) -> None:
        """Note what a verification at `level` found; of a copy that was pruned meanwhile, nothing.

        Stored bytes that are right do not lift damage that was found in their content.
        """
        for result in results:
            if result.unreadable is not None:
                continue
            copies = Copy.objects.filter(
                backup__backup_id=result.id, destination=result.destination
            ).exclude(status=Copy.Status.PRUNED)
            if not result.problems and level == "stored":
                copies = copies.exclude(status=Copy.Status.DAMAGED, damage_level="content")
            copies.update(
                status=Copy.Status.DAMAGED if result.problems else Copy.Status.COMPLETE,
                damage_level=level if result.problems else "",
                error="\n".join(result.problems),
                verified_at=datetime.now(UTC),
            )

    @_reading(dict)
    def verified_at(self) -> dict[tuple[str, str], datetime]:
        """Return when each copy was last verified, by backup id and destination.

        Empty where the catalog cannot be read.
        """
        copies = Copy.objects.filter(verified_at__isnull=False)
        return {
            (backup_id, destination): moment
            for backup_id, destination, moment in copies.values_list(
                "backup__backup_id", "destination", "verified_at"
            )
            if moment is not None
        }

    @_reading(frozenset)
    def damaged_copies(self) -> frozenset[tuple[str, str]]:
        """Return (backup id, destination) of the copies that a verification found damaged.

        Empty where the catalog cannot be read.
        """
        damaged = Copy.objects.filter(status=Copy.Status.DAMAGED)
        return frozenset(damaged.values_list("backup__backup_id", "destination"))

    @_reading(int)
    def newest_sequence(self, project: str) -> int:
        """Return the highest number of a whole backup that was committed, safety ones apart.

        0 where there is none, or the catalog cannot be read.
        """
        made = (Backup.Status.COMPLETE, Backup.Status.PARTIAL)
        committed = Backup.objects.filter(ours(project), whole=True, status__in=made).exclude(
            kind=Backup.Kind.SAFETY
        )
        return int(committed.aggregate(newest=Max("sequence"))["newest"] or 0)

    @_reading(lambda: None)
    def of_slot(self, kind: str, slot: datetime) -> str | None:
        """Return the name of the whole backup that was made for the slot; None where there is none.

        None too where the catalog cannot be read.
        """
        made = (Backup.Status.COMPLETE, Backup.Status.PARTIAL)
        backups = Backup.objects.filter(kind=kind, slot=slot, status__in=made, whole=True)
        return backups.values_list("name", flat=True).first()

    @_reading(lambda: ({}, None))
    def slots(self, project: str) -> tuple[dict[str, datetime], datetime | None]:
        """Return the newest slot that each kind has a backup for, and the first that had a run.

        A backup that is being made counts. Nothing where the catalog cannot be read.
        """
        runs = Backup.objects.filter(ours(project), whole=True, slot__isnull=False)
        status = Backup.Status
        good = runs.filter(status__in=(status.RUNNING, status.COMPLETE, status.PARTIAL))
        newest = good.order_by().values_list("kind").annotate(newest=Max("slot"))
        return dict(newest), runs.aggregate(first=Min("slot"))["first"]

    @_optional
    def start_restore(self, restore_id: str, manifest: Manifest, sources: list[str]) -> None:
        """Note a restore, unless it is noted already: the swap may have changed the database."""
        Restore.objects.get_or_create(
            restore_id=restore_id,
            defaults={
                "backup_id": manifest.id,
                "backup_name": manifest.name,
                "status": Restore.Status.RUNNING,
                "sources": sources,
                "started_at": datetime.now(UTC),
            },
        )

    @_optional
    def end_restore(
        self,
        restore_id: str,
        status: str,
        error: str = "",
        *,
        downtime: float | None = None,
        safety: str | None = None,
    ) -> None:
        Restore.objects.filter(restore_id=restore_id).update(
            status=status,
            error=error,
            finished_at=datetime.now(UTC),
            downtime_seconds=downtime,
            safety_backup=safety or "",
        )

    @_optional
    def record_drill(self, result: DrillResult) -> None:
        Drill.objects.create(
            drill_id=result.id,
            backup_id=result.backup_id,
            backup_name=result.backup_name,
            destination=result.destination,
            passed=result.passed,
            started_at=result.started_at,
            finished_at=result.finished_at,
            seconds=result.seconds,
            steps=[step.to_dict() for step in result.steps],
        )

    @_reading(lambda: None)
    def last_drill(self) -> DrillFacts | None:
        """Return the last drill; None where there is none, or the catalog cannot be read."""
        drills = Drill.objects.order_by("-finished_at", "-pk")
        drill = drills.first() if _has_table(Drill, "default") else None
        if drill is None:
            return None
        return DrillFacts(
            finished_at=drill.finished_at,
            passed=drill.passed,
            backup_name=drill.backup_name,
            seconds=drill.seconds,
        )

    @_optional
    def keep_look(self, project: str, at: datetime, document: Mapping[str, Any]) -> None:
        """Keep what a look at the project saw, as JSON values, in place of the one before."""
        Look.objects.update_or_create(project=project, defaults={"at": at, "document": document})

    def last_look(self, project: str) -> Mapping[str, Any] | None:
        """Return what the last look saw; None where nobody has looked.

        Raises CatalogError where the catalog cannot be read.
        """
        with needed():
            look = Look.objects.filter(project=project).first()
        return look.document if look else None

    def note_checklist(self, project: str, entry: Entry) -> None:
        """Keep what was done to the checklist; raises CatalogError where that cannot be."""
        with needed():
            ChecklistEntry.objects.create(project=project, **dataclasses.asdict(entry))

    def note_drill(self, drill_id: str, notes: str) -> None:
        """Keep what was done about a drill's problems; raises CatalogError where that cannot be."""
        with needed():
            Drill.objects.filter(drill_id=drill_id).update(notes=notes)

    @_reading(History)
    def history(self) -> History:
        """Return what the live catalog knows of the past; empty where it cannot be read."""
        return History(
            backups=[*Backup.objects.all()],
            copies=[*Copy.objects.select_related("backup")],
            others=[
                row
                for model in OTHERS
                if _has_table(model, "default")
                for row in model._default_manager.all()
            ],
        )

    @_optional
    def add_history(self, history: History, using: str = "default") -> None:
        """Put the history into the database `using`, whose catalog is empty."""
        with transaction.atomic(using=using):
            _add_rows(Backup, history.backups, using)
            for model in OTHERS:
                if _has_table(model, using):
                    rows = [row for row in history.others if isinstance(row, model)]
                    _add_rows(model, rows, using)
            _add_copies(history.copies, using)

    @_optional
    def sync(self, found: Mapping[str, Iterable[Found]], using: str = "default") -> None:
        """Make the catalog say what the destinations hold; runs without a manifest stay.

        `found` is by destination: of one that is not in it nothing new is known. A pin that lies
        beside a backup counts where the catalog did not know the backup.
        """
        with transaction.atomic(using=using):
            known = frozenset(Backup.objects.using(using).values_list("backup_id", flat=True))
            for destination, items in found.items():
                held = {item.manifest.id: item for item in items if item.manifest is not None}
                were = (Copy.Status.COMPLETE, Copy.Status.DAMAGED)
                copies = Copy.objects.using(using).filter(destination=destination, status__in=were)
                copies.exclude(backup__backup_id__in=held).update(status=Copy.Status.MISSING)
                for item in held.values():
                    assert item.manifest is not None
                    _record(item.manifest, item.sha256, {destination: True}, using)
                pinned = {item_id for item_id, item in held.items() if item.pinned} - known
                Backup.objects.using(using).filter(backup_id__in=pinned).update(pinned=True)

    @_reading(lambda: None)
    def known(self, project: str, now: datetime) -> Known | None:
        """Return what a prune of `project` goes by; None where the catalog cannot be read."""
        runs = Backup.objects.filter(ours(project), started_at__lte=now)
        newest = runs.order_by("-started_at", "-pk")
        run = newest.values("name", "status").first()
        there = Copy.objects.filter(
            status__in=(Copy.Status.COMPLETE, Copy.Status.DAMAGED),
            backup__manifest__project=project,
        )
        copies: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for destination, backup_id, name in there.values_list(
            "destination", "backup__backup_id", "backup__name"
        ):
            copies[destination][backup_id] = name
        pinned = Backup.objects.filter(pinned=True).values_list("backup_id", flat=True)
        return Known(
            newest=Run(**run) if run else None,
            copies=copies,
            damaged=self.damaged_copies(),
            pinned=frozenset(pinned),
        )

    @_optional
    def pruned(self, backup_id: str, destination: str, reason: Message) -> None:
        """Note that a copy was deleted on purpose, and why."""
        Copy.objects.filter(backup__backup_id=backup_id, destination=destination).update(
            status=Copy.Status.PRUNED, error=str(reason)
        )

    @_reading(bool)
    def was_pruned(self, backup_id: str) -> bool:
        """Say whether a backup was pruned, and is whole nowhere else; False where nobody knows."""
        copies = Copy.objects.filter(backup__backup_id=backup_id)
        others = copies.exclude(status__in=(Copy.Status.PRUNED, Copy.Status.FAILED))
        return copies.filter(status=Copy.Status.PRUNED).exists() and not others.exists()

    @_optional
    def pin(self, backup_id: str, pinned: bool) -> None:
        Backup.objects.filter(backup_id=backup_id).update(pinned=pinned)

    @_reading(lambda: None)
    def recorded(self, project: str, limit: int) -> list[BackupFacts] | None:
        """Return the newest backups that count, with their copies; None where that cannot be."""
        made = (Backup.Status.COMPLETE, Backup.Status.PARTIAL)
        backups = Backup.objects.filter(ours(project), status__in=made, whole=True)
        newest = backups.exclude(kind=Backup.Kind.SAFETY).order_by("-sequence", "-started_at")
        return [_facts(backup) for backup in newest.prefetch_related("copies")[:limit]]

    @_reading(lambda: None)
    def last_run(self, project: str, *, running: bool) -> RunFacts | None:
        """Return the last run of a backup that counts: one that is running, or one that has ended.

        None where there is none, or where the catalog cannot be read.
        """
        runs = Backup.objects.filter(ours(project), whole=True).exclude(kind=Backup.Kind.SAFETY)
        chosen = runs.filter if running else runs.exclude
        run = chosen(status=Backup.Status.RUNNING).order_by("-started_at").first()
        if run is None:
            return None
        return RunFacts(
            name=run.name, status=run.status, started_at=run.started_at, error=run.error
        )

    @_reading(lambda: None)
    def last_restore(self) -> RestoreFacts | None:
        """Return the last restore of databases and media that succeeded, and how long it took.

        None where there is none among the last few, or the catalog cannot be read.
        """
        done = Restore.objects.filter(status=Restore.Status.COMPLETE)
        for restore in done.exclude(finished_at=None).order_by("-finished_at")[:10]:
            backup = Backup.objects.filter(backup_id=restore.backup_id, whole=True).first()
            if backup is None or set(backup.sources) - {"fixtures"} - set(restore.sources):
                continue
            assert restore.finished_at is not None
            return RestoreFacts(
                finished_at=restore.finished_at,
                backup_name=backup.name,
                seconds=(restore.finished_at - restore.started_at).total_seconds(),
            )
        return None

    @_reading(lambda: None)
    def rows(self) -> list[dict[str, Any]] | None:
        """Return the runs, newest first, as JSON values; None where they cannot be read.

        A backup whose every copy was pruned is history, and left out.
        """
        rows = [_row(backup) for backup in Backup.objects.prefetch_related("copies")]
        return [row for row in rows if not _is_pruned(row)]


def ours(project: str) -> Q:
    """Those of a project, not of others in the same place; a failed run has no manifest."""
    return Q(manifest__project=project) | Q(manifest={})


def _has_table(model: type[Model], using: str) -> bool:
    """Say whether the table is there: backups, and databases before `migrate`, may be older."""
    return model._meta.db_table in connections[using].introspection.table_names()


def _add_rows(model: type[Model], rows: Iterable[Model], using: str) -> None:
    model._default_manager.using(using).bulk_create(map(_unsaved, rows), batch_size=500)


def _add_copies(copies: Iterable[Copy], using: str) -> None:
    """Add what is known of each copy, so that a failed or damaged one is not forgotten."""
    backups = dict(Backup.objects.using(using).values_list("backup_id", "pk"))
    rows = []
    for known in copies:
        row = _unsaved(known)
        row.backup_id = backups[known.backup.backup_id]
        rows.append(row)
    Copy.objects.using(using).bulk_create(rows, batch_size=500)


def _unsaved(row: Any) -> Any:
    fresh = copy(row)
    fresh.pk = None
    fresh._state = ModelState()
    return fresh


def _record(manifest: Manifest, sha256: str, copies: Mapping[str, bool], using: str | None) -> None:
    values = {
        "name": manifest.name,
        "kind": manifest.kind,
        "label": manifest.label,
        "slot": manifest.slot,
        "sequence": manifest.sequence,
        "whole": manifest.whole,
        "status": Backup.Status.COMPLETE if all(copies.values()) else Backup.Status.PARTIAL,
        "started_at": manifest.started_at,
        "finished_at": manifest.finished_at,
        "raw_size": manifest.raw_size,
        "stored_size": manifest.stored_size,
        "sha256": sha256,
        "sources": [source.name for source in manifest.sources],
        "warnings": list(manifest.warnings),
        "manifest": json.loads(json.dumps(dataclasses.asdict(manifest), default=str)),
    }
    backup, _created = Backup.objects.using(using).update_or_create(
        backup_id=manifest.id, defaults=values
    )
    for destination, good in copies.items():
        status = Copy.Status.COMPLETE if good else Copy.Status.FAILED
        copy, created = Copy.objects.using(using).get_or_create(
            backup=backup, destination=destination, defaults={"status": status}
        )
        # That a manifest can be read does not make a damaged copy good: verification does.
        if not created and copy.status != Copy.Status.DAMAGED:
            copy.status, copy.error = status, ""
            copy.save(using=using)
    failed = Copy.objects.using(using).filter(backup=backup, status=Copy.Status.FAILED)
    if failed.exists():
        Backup.objects.using(using).filter(pk=backup.pk).update(status=Backup.Status.PARTIAL)


def _facts(backup: Backup) -> BackupFacts:
    snapshot = backup.manifest.get("snapshot_at")
    sources = backup.manifest.get("sources", ())
    saved = [(source["name"], source["facts"]) for source in sources]
    return BackupFacts(
        id=backup.backup_id,
        name=backup.name,
        kind=backup.kind,
        whole=backup.whole,
        sequence=backup.sequence,
        snapshot_at=datetime.fromisoformat(snapshot) if snapshot else backup.started_at,
        finished_at=backup.finished_at or backup.started_at,
        stored_size=backup.stored_size,
        copies={
            copy.destination: CopyFacts(
                status=copy.status, error=copy.error, verified_at=copy.verified_at
            )
            for copy in backup.copies.all()
        },
        data_size=sum(a["raw_size"] for source in sources for a in source["artifacts"]),
        media_size=media_bytes(saved),
        rows=row_counts(saved),
    )


def _is_pruned(row: Mapping[str, Any]) -> bool:
    statuses = {copy["status"] for copy in row["copies"]}
    return statuses == {Copy.Status.PRUNED}


def _row(backup: Backup) -> dict[str, Any]:
    return {
        "id": backup.backup_id,
        "name": backup.name,
        "kind": backup.kind,
        "label": backup.label,
        "status": backup.status,
        "pinned": backup.pinned,
        "started_at": backup.started_at.isoformat(),
        "finished_at": backup.finished_at.isoformat() if backup.finished_at else None,
        "raw_size": backup.raw_size,
        "stored_size": backup.stored_size,
        "sha256": backup.sha256,
        "sources": backup.sources,
        "warnings": [*backup.warnings, *filter(None, [backup.error])],
        "copies": [
            {"destination": copy.destination, "status": copy.status, "error": copy.error or None}
            for copy in backup.copies.all()
        ],
    }
