"""Where a backup comes from, and whether that is here: before it replaces what is live."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from mipyme_backup.errors import OtherOriginError
from mipyme_backup.manifest import Manifest
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.targets import Request, Targets, replaces_live
from mipyme_backup.policy.origin import database_of, databases_of, is_generic, is_same_host


def origin_line(manifest: Manifest) -> Message:
    """Say of which project, host and databases a backup is."""
    databases = databases_of(manifest.facts)
    params = {"project": manifest.project, "host": manifest.host or "?"}
    if not databases:
        return Message(_("It is of the project %(project)s, made on the host %(host)s."), params)
    text = _(
        "It is of the project %(project)s, made on the host %(host)s, of the databases:"
        " %(databases)s"
    )
    listed = [f"{name.partition(':')[2] or name}: {one}" for name, one in databases.items()]
    return Message(text, {**params, "databases": ", ".join(listed)})


def other_origin(
    project: Project, request: Request, manifest: Manifest, targets: Targets
) -> list[Message]:
    """Return what speaks against the backup being one of what is here; nothing where nothing does.

    Restored beside the live data, any backup may be looked at. Where nothing is live, another host
    is what a restore is for.
    """
    if request.elsewhere:
        return []
    found = [*_other_databases(project, manifest)]
    here = socket.gethostname()
    if manifest.host and not is_same_host(manifest.host, here) and replaces_live(targets):
        text = _(
            "The backup was made on the host %(theirs)s, and this host is %(here)s, where it would"
            " replace live data."
        )
        found.append(Message(text, {"theirs": manifest.host, "here": here}))
    return found


def asked_for(request: Request, found: Sequence[Message]) -> list[Message]:
    """Say in a plan what the restore will ask for because of what `other_origin` returned."""
    if not found or request.other_origin:
        return []
    text = _("The backup may belong to another project: the restore asks, or needs --other-origin.")
    return [Message(text)]


def require_same_origin(request: Request, manifest: Manifest, found: Sequence[Message]) -> None:
    """Raise OtherOriginError for a backup of another origin, unless the operator said it is right.

    `found` is what `other_origin` returned.
    """
    if found and not request.other_origin:
        reasons = found[0]
        for more in found[1:]:
            reasons = Message("%(first)s %(second)s", {"first": reasons, "second": more})
        raise OtherOriginError(
            _("The backup %(name)s may be of another project: %(reasons)s Nothing was changed."),
            hint=_(
                "If it is the right one, run the same command with --other-origin. If not, find the"
                " right one by host and database with list_backups, and name it: manage.py restore"
                " ID"
            ),
            name=manifest.name,
            reasons=reasons,
        )


def generic_name_warnings(project: Project, known: bool) -> list[Message]:
    """Warn of a default name that many projects have, while no backup with it is `known`."""
    if known or not project.named_by_default or not is_generic(project.name):
        return []
    text = _(
        "This project has the name %(name)s from its settings module, as many others do: a backup"
        " of another one with that name can be restored here by mistake. Set PROJECT in"
        " MIPYME_BACKUP to a name of its own now. The backups made until then keep the name"
        " %(name)s, and a project of another name neither restores nor prunes them."
    )
    return [Message(text, {"name": project.name})]


def _other_databases(project: Project, manifest: Manifest) -> Iterator[Message]:
    for name, theirs in databases_of(manifest.facts).items():
        source = project.find_source(name)
        here = None if source is None else database_of(source.origin())
        if here is not None and here.name != theirs.name:
            text = _("%(source)s of the backup is %(theirs)s, and here it is %(here)s.")
            yield Message(text, {"source": name, "theirs": str(theirs), "here": str(here)})
