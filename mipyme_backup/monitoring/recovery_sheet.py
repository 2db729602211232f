"""The page to print and keep elsewhere: all that is needed to come back, and no secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from django.template import Context, Engine
from django.utils import timezone

import mipyme_backup
from mipyme_backup.monitoring.status import Status
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.recovery_program import program_sha256
from mipyme_backup.policy.status import age_text
from mipyme_backup.policy.status_facts import BackupFacts

LANGUAGES = ("en", "es")
TEMPLATES = Path(__file__).parent.parent / "templates" / "mipyme_backup"


@dataclass(frozen=True, kw_only=True)
class KeyFile:
    """A file that must be kept elsewhere as well; `kind` is passphrase, old or signing."""

    kind: str
    path: Path

    @property
    def folder(self) -> Path:
        return self.path.parent


@dataclass(frozen=True, kw_only=True)
class Promises:
    """What the settings say beside the parts.

    None stands for the policy's own contacts and checklist. `recipients` are fingerprints of
    public keys, `keyring` the folder of theirs, None for gpg's own.
    """

    folder: Path
    rpo: timedelta
    rto: timedelta
    key_files: Sequence[KeyFile]
    recipients: Sequence[str]
    keyring: Path | None
    contacts: Sequence[Mapping[str, str]] | None
    checklist: Sequence[str] | None
    review: date | None


def key_files(options: Mapping[str, Any], signing_key_file: Path | None) -> list[KeyFile]:
    """Return the files that the options of the encryption name, and the signing key's."""
    named = [("passphrase", options.get("passphrase_file"))]
    named += [("old", file) for file in options.get("old_passphrase_files", ())]
    named.append(("signing", signing_key_file))
    return [KeyFile(kind=kind, path=Path(file)) for kind, file in named if file]


def render(project: Project, status: Status, promises: Promises, *, language: str) -> str:
    """Return the sheet in Markdown; `language` is one of `LANGUAGES`."""
    engine = Engine(
        dirs=[str(TEMPLATES)],
        autoescape=False,  # it is no HTML
        builtins=["mipyme_backup.monitoring.sheet_filters"],
    )
    context = {**_context(status, promises), **_parts(project, status)}
    text = engine.get_template(f"recovery_sheet.{language}.md").render(Context(context))
    return re.sub(r"\n{3,}", "\n\n", text)


def _context(status: Status, promises: Promises) -> dict[str, Any]:
    facts = status.facts
    kinds = {file.kind for file in promises.key_files}
    secrets = [kind for kind in ("passphrase", "signing") if kind in kinds]
    options = "".join(f" --passphrase-file ../{kind}" for kind in secrets)
    if promises.recipients:
        options += " --gnupghome ~/.gnupg"
    return {
        "project": status.project,
        "host": status.host,
        "printed": _moment(status.at),
        "level": status.level,
        "newest": _backup(facts.newest_good()),
        "rpo": age_text(promises.rpo),
        "rto": age_text(promises.rto),
        "review": promises.review.isoformat() if promises.review else None,
        "contacts": promises.contacts,
        "checklist": promises.checklist,
        "folder": promises.folder,
        "encrypted": facts.encryption is not None,
        "fingerprint": facts.key_fingerprint,
        "key_files": promises.key_files,
        "recipients": promises.recipients,
        "keyring": promises.keyring,
        "recover_sha256": program_sha256(),
        "version": mipyme_backup.__version__,
        "recover_files": secrets,
        "recover_options": options,
        "recover_unpack": "" if facts.encryption or secrets else " --unauthenticated",
    }


def _parts(project: Project, status: Status) -> dict[str, Any]:
    destinations = [
        {
            "name": item.name,
            "place": item.place,
            "remote": item.remote,
            "reachable": item.reachable,
            "newest": _backup(status.facts.newest_good(item.name)),
        }
        for item in status.facts.destinations
    ]
    sources = [*_sources(project, status.facts.newest_good())]
    return {
        "sources": sources,
        "postgresql": any(source.get("vendor") == "postgresql" for source in sources),
        "destinations": destinations,
        "any_remote": any(item["remote"] for item in destinations),
        "any_local": not all(item["remote"] for item in destinations),
        "rsync": any(str(item["place"]).startswith("rsync ") for item in destinations),
    }


def _sources(project: Project, newest: BackupFacts | None) -> Iterator[dict[str, Any]]:
    for name, source in project.sources.items():
        place = {"name": name, **source.place()}
        if "vendor" in place:
            saved = newest.engines.get(name) if newest else None
            place["engine"] = saved or place["vendor"]
        yield place


def _backup(backup: BackupFacts | None) -> dict[str, str] | None:
    if backup is None:
        return None
    return {"name": backup.name, "finished": _moment(backup.finished_at)}


def _moment(at: datetime) -> str:
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M %Z}"
