"""The plan of a restore: what will happen, in lines for a person; raises what forbids it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.migrations.loader import MigrationLoader

from mipyme_backup.errors import RestoreError
from mipyme_backup.manifest import Manifest
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.choosing import Choice
from mipyme_backup.operations.origin import origin_line
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.targets import Request, Targets
from mipyme_backup.operations.targets import left_out as not_restored
from mipyme_backup.policy.left_out import joined, left_out, missing_files
from mipyme_backup.sources.base import View


def plan_lines(
    project: Project, request: Request, choice: Choice, targets: Targets
) -> list[Message]:
    """Return the plan; raises RestoreError and PreflightError for what forbids it."""
    manifest = choice.manifest
    lines = [
        Message(
            _("Backup %(name)s of %(moment)s, from %(destinations)s"),
            {
                "name": manifest.name,
                "moment": f"{manifest.snapshot_at:%Y-%m-%d %H:%M:%S} UTC",
                "destinations": ", ".join(choice.destinations),
            },
        ),
        origin_line(manifest),
        *choice.warnings,
    ]
    if manifest.key_fingerprint is not None:
        text = _("It is encrypted, with the key %(key)s.")
        lines.append(Message(text, {"key": manifest.key_fingerprint}))
    lines += _lacking(targets)
    for part in targets:
        lines += part.target.plan()
    if left := not_restored(project, manifest, targets):
        text = _("In this backup, but not restored: %(sources)s")
        lines.append(Message(text, {"sources": ", ".join(left)}))
    lines += _not_in_backup(project, request, manifest)
    lines += _migrations(manifest, targets, migrate=request.migrate)
    if not request.elsewhere:
        lines += _live_data(project, request, targets)
    return lines


def _not_in_backup(project: Project, request: Request, manifest: Manifest) -> list[Message]:
    """Name what the project saves today, and this backup was made without."""
    if request.only or request.elsewhere:
        return []
    names = [
        name
        for name, source in project.sources.items()
        if manifest.source(name) is None
        and not source.held_elsewhere
        and not source.is_absent(View())
    ]
    if not names:
        return []
    text = _("Not in this backup, so not changed: %(sources)s")
    return [Message(text, {"sources": ", ".join(names)})]


def _lacking(targets: Targets) -> list[Message]:
    """Say what the backup could not save of each source that is restored."""
    text = _("This backup is missing parts of %(source)s: %(what)s")
    lines = []
    for part in targets:
        source = part.saved
        found = [message for _severity, message in left_out(source.name, source.facts)]
        missing = missing_files([(source.name, source.facts)])
        if missing:
            gone = _("files that rows name and that did not exist (%(count)d)")
            found.append(Message(gone, {"count": missing}))
        if found:
            lines.append(Message(text, {"source": source.name, "what": joined(found)}))
    return lines


def _live_data(project: Project, request: Request, targets: Targets) -> Iterator[Message]:
    """Say what becomes of what is live now; nothing where nothing is."""
    live = [part.target for part in targets if part.target.merges or part.target.has_live()]
    if not live:
        yield Message(_("Nothing is live here, so nothing is replaced and there is no undo."))
        return
    if request.safety_backup:
        yield Message(_("The live data is saved first, as a safety backup."))
    else:
        yield Message(_("NO safety backup of the live data is taken."))
    if any(not target.for_good and not target.merges for target in live):
        yield Message(
            _("What is replaced is kept for %(hours)d hours: restore --undo swaps it back."),
            {"hours": project.keep_replaced / timedelta(hours=1)},
        )


def _migrations(manifest: Manifest, targets: Targets, *, migrate: bool) -> list[Message]:
    """Refuse a database newer than the code; name `migrate` where it is older."""
    if not any(part.target.alias and not part.target.merges for part in targets):
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
        if manifest.migrations
        and f"{app}.{name}" not in applied
        and not _is_squash(loader, app, name)
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
