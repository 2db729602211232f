"""Saves files of one place, a folder or a remote storage: once by content, in shared packs."""

from __future__ import annotations

import contextlib
import hashlib
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.template.defaultfilters import filesizeformat

from mipyme_backup.errors import (
    BackupError,
    ConfigurationError,
    PreflightError,
    RestoreError,
    SourceError,
)
from mipyme_backup.messages import Message, _
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import (
    Artifact,
    Contents,
    Facts,
    Openers,
    Restorable,
    Source,
    Target,
    View,
    Where,
    require_own,
)
from mipyme_backup.sources.content import check_lines
from mipyme_backup.sources.media.changes import Changes
from mipyme_backup.sources.media.check import check_files, check_pack
from mipyme_backup.sources.media.collection import Collection
from mipyme_backup.sources.media.contents import FolderTree
from mipyme_backup.sources.media.index import POOL, SUFFIX, FileRecord, index_in, read_records
from mipyme_backup.sources.media.location import resolved
from mipyme_backup.sources.media.packs import Packer
from mipyme_backup.sources.media.remote import RemoteMediaTarget, RemoteTree, objects_in
from mipyme_backup.sources.media.remote.failures import failures
from mipyme_backup.sources.media.target import MediaTarget
from mipyme_backup.sources.media.tree import Tree

PACK_SIZE = 512 * 1024 * 1024
PACK_NAME = "files.tar"


class FileOptions:
    """How files are read, and packed: packs are of about `pack_size` bytes.

    `follow_links` saves what is behind links that lead out of the folder; else they are saved as
    links. A file is read again when its size, time, change time or inode changed: `ignore_ctime`
    and `ignore_inode` leave the last two out. With `full_read_days` it is read again after so many
    days however it looks. Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        pack_size: int = PACK_SIZE,
        follow_links: bool = False,
        ignore_ctime: bool = False,
        ignore_inode: bool = False,
        full_read_days: int | None = None,
    ) -> None:
        if full_read_days is not None and not (type(full_read_days) is int and full_read_days > 0):
            raise ConfigurationError(
                _("full_read_days of MediaSource is %(value)s, and must be a number of days"),
                hint=_("Give it a whole number from 1 on, or leave it out."),
                value=repr(full_read_days),
            )
        self.pack_size = pack_size
        self.follow_links = follow_links
        self.changes = partial(
            Changes,
            ignore_ctime=ignore_ctime,
            ignore_inode=ignore_inode,
            full_read_days=full_read_days,
        )


class FileSource(Source):
    """The files of one place: of a folder, or of the storage that `remote_key` names.

    Yields the packs that are new in this run, then the index of all files, which is called
    ``<index_stem>.index.jsonl``. Where the files cannot be listed, that stops the backup if they
    are `required`. Else they are left out and told, for the rest is to be saved: what the last
    backup has of them is kept.
    """

    place_option = "--to-media"

    def __init__(self, options: FileOptions, *, required: bool = True) -> None:
        self._options = options
        self._required = required
        self._is_left_out = False

    @property
    @abstractmethod
    def index_stem(self) -> str: ...

    @property
    def tag(self) -> str:
        """What tells the targets of this source from those of others in the same folder."""
        return hashlib.sha256(self.index_stem.encode()).hexdigest()[:8]

    @property
    def remote_key(self) -> str | None:
        """The alias or field whose storage is no folder: see `storage_called`."""
        return None

    @property
    @abstractmethod
    def location(self) -> Path | None:
        """The folder of the files; None where there is none. Raises ConfigurationError."""

    def preflight(self) -> Iterator[Message]:
        self._is_left_out = False
        try:
            self._require_listable()
        except PreflightError as error:
            if self._required:
                raise
            self._is_left_out = True
            text = _("The files of %(name)s are not saved: %(reason)s")
            yield Message(text, {"name": self.name, "reason": error.message})

    def _require_listable(self) -> None:
        """Raise PreflightError where the files cannot be listed."""
        if self.remote_key is not None:
            objects = objects_in(self.remote_key)
            with failures(objects, _("list"), PreflightError):
                objects.require_listable()
        location = self.location
        if location is not None and resolved(location, PreflightError).exists():
            if not location.is_dir():
                raise PreflightError(_("%(folder)s is no folder."), folder=str(location))
            if not os.access(location, os.R_OK | os.X_OK):
                raise PreflightError(
                    _("The folder %(folder)s cannot be read."),
                    hint=_("Run the backup as a user who may read it."),
                    folder=str(location),
                )

    def is_absent(self, view: View) -> bool:
        """As in the base: where rows name files all the same, what is missing is to be told."""
        placeless = self.remote_key is None and self.location is None
        return placeless and next(iter(view.expected_files), None) is None

    def completed(self, facts: Facts) -> Facts:
        """Return the facts of the index with what this source knows beside them."""
        if not self._is_left_out:
            return facts
        return {**facts, "unreadable": facts.get("unreadable", 0) + 1}

    def unsaved_warnings(self) -> list[Message]:
        """Say which files this source knows of, and does not save."""
        return []

    def artifacts(self, view: View) -> Iterator[Artifact]:
        location, name = self.location, f"{self.index_stem}{SUFFIX}"
        collection = Collection(
            self._tree(),
            view,
            root=location,
            changes=self._options.changes(),
            index_name=name,
            unseen=self._is_left_out,
        )
        members = collection.members()
        try:
            packer = Packer(members, self._options.pack_size)
            for pack, reader in packer.packs():
                yield Artifact(name=PACK_NAME, pool=pack, open=_opener(reader), check=check_pack)
            yield Artifact(
                name=name,
                open=collection.index.open,
                check=check_lines,
                read_again=True,
                facts=lambda: self.completed({**collection.facts(), "place": self._described()}),
                warnings=lambda: [*self.unsaved_warnings(), *collection.warnings()],
            )
        except OSError as error:
            raise SourceError(
                _("The folder %(folder)s cannot be read: %(reason)s"),
                folder=str(location),
                reason=error.strerror,
            ) from error
        finally:
            members.close()
            collection.close()

    def _described(self) -> str:
        """Return where the files are, for who puts them back by hand."""
        return self.remote_key or str(self.location or "")

    def _tree(self) -> Tree:
        if self._is_left_out:
            return FolderTree(None)
        if self.remote_key is not None:
            return RemoteTree(objects_in(self.remote_key))
        return FolderTree(self.location, follow_links=self._options.follow_links)

    def targets(self, restore_id: str, contents: Contents, where: Where) -> Sequence[Restorable]:
        """Return the place, or the new folder that the operator named, as the target.

        Raises RestoreError where the settings name no place.
        """
        target: Target
        if where.to_directory is None and self.remote_key is not None:
            target = RemoteMediaTarget.prepare(storage=self.remote_key, restore_id=restore_id)
        else:
            location = where.to_directory or self.location
            if location is None and not _has_files(contents):
                return []
            if location is None:
                raise RestoreError(
                    _("The backup holds media, and the settings have no MEDIA_ROOT."),
                    hint=_(
                        "Set it, and restore again. Or restore the rest with --only database, and"
                        " the media into a folder with --only media --to-media DIR."
                    ),
                )
            target = MediaTarget.prepare(
                location=location,
                restore_id=restore_id,
                to_directory=where.to_directory,
                tag=self.tag,
            )
        return [_restorable(target, contents)]

    def drill_target(self, drill_id: str, contents: Contents, folder: Path) -> Restorable:
        target = MediaTarget.prepare(
            location=folder, restore_id=drill_id, to_directory=folder, tag=self.tag
        )
        # A drill runs the project's code, which must find no way out of its folder.
        target.links = False
        return _restorable(target, contents)

    def restored_target(self, state: dict[str, Any], *, elsewhere: bool) -> Target:
        try:
            if state["type"] == "media":
                location = None if elsewhere else self.location
                if location is None and not elsewhere:
                    require_own(state, {"location": None})
                MediaTarget.check_state(state, location, self.tag)
                return MediaTarget.from_state(state)
            require_own(state, {"type": "remote_media", "storage": self.remote_key})
            RemoteMediaTarget.check_state(state, state["storage"])
            return RemoteMediaTarget.from_state(state)
        except ConfigurationError as error:
            raise RestoreError(
                _("A restore of the media in the storage %(alias)s is kept: %(reason)s"),
                hint=_("Put it back into STORAGES until KEEP_REPLACED_HOURS are over."),
                alias=state["storage"],
                reason=error,
            ) from error

    def check_content(self, artifact: str, openers: Openers, facts: Facts, work: Path) -> None:
        packs = {name: opener for name, opener in openers.items() if name.startswith(POOL)}
        with contextlib.closing(openers[artifact]()) as index:
            check_files(index, packs, work)

    def stored_files(self, openers: Openers) -> Iterator[tuple[bytes, str]]:
        for record in read_records(openers[index_in(openers)]()):
            if isinstance(record, FileRecord):
                yield record.path, record.sha256

    def path_elsewhere(self, where: Where) -> Path | None:
        return where.to_directory

    def describe(self, facts: Mapping[str, Facts]) -> Message | None:
        return Message(
            _("%(files)d files, %(size)s, %(new)d new"),
            {
                "files": _total(facts, "files"),
                "size": filesizeformat(_total(facts, "bytes")).replace("\xa0", " "),
                "new": _total(facts, "new_files"),
            },
        )

    def place(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {"kind": "media"}
        with contextlib.suppress(BackupError):
            remote = self.remote_key
            found |= {"folder": self.location} if remote is None else {"storage": remote}
        return found


def escaped(name: str) -> str:
    """Return `name` as part of an artifact's name: letters, digits, ``_`` and ``-`` as they are."""
    return quote(name, safe="").replace(".", "%2E").replace("~", "%7E")


def _opener(reader: Reader) -> Callable[[], Reader]:
    return lambda: reader


def _total(facts: Mapping[str, Facts], key: str) -> int:
    return sum(saved.get(key, 0) for saved in facts.values())


def _has_files(contents: Contents) -> bool:
    return any(saved.facts.get("files", 1) for saved in contents.values())


def _restorable(target: Target, contents: Contents) -> Restorable:
    facts = next((saved.facts for name, saved in contents.items() if name.endswith(SUFFIX)), {})
    return Restorable(target=target, artifacts=[*contents], facts=facts)
