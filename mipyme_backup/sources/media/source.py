"""Saves the files of a Django file storage: one that keeps them in a folder, or a remote one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage
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
    Snapshot,
    Source,
    Target,
    View,
    Where,
    require_own,
)
from mipyme_backup.sources.content import check_lines
from mipyme_backup.sources.file_fields import file_names
from mipyme_backup.sources.media.changes import Changes
from mipyme_backup.sources.media.check import check_files, check_pack
from mipyme_backup.sources.media.collection import Collection
from mipyme_backup.sources.media.contents import FolderTree
from mipyme_backup.sources.media.index import INDEX_NAME, FileRecord, read_records
from mipyme_backup.sources.media.location import resolved
from mipyme_backup.sources.media.packs import Packer
from mipyme_backup.sources.media.remote import RemoteMediaTarget, RemoteTree, objects_in
from mipyme_backup.sources.media.remote.failures import failures
from mipyme_backup.sources.media.remote.families import storage_of
from mipyme_backup.sources.media.target import MediaTarget
from mipyme_backup.sources.media.tree import Tree

PACK_SIZE = 512 * 1024 * 1024
PACK_NAME = "files.tar"
POOL = "pool/"


class MediaSource(Source):
    """The files of the storage `storage`, in packs of about `pack_size` bytes.

    `follow_links` saves what is behind links that lead out of the folder; else they are saved as
    links. A file is read again when its size, time, change time or inode changed: `ignore_ctime`
    and `ignore_inode` leave the last two out. With `full_read_days` it is read again after so many
    days however it looks.

    Yields the packs that are new in this run, then the index of all files.
    """

    name = "media"
    place_option = "--to-media"

    def __init__(
        self,
        storage: str = "default",
        pack_size: int = PACK_SIZE,
        *,
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
        self.storage = storage
        self.storages = (storage,)
        self.pack_size = pack_size
        self.follow_links = follow_links
        self._changes = partial(
            Changes,
            ignore_ctime=ignore_ctime,
            ignore_inode=ignore_inode,
            full_read_days=full_read_days,
        )

    @property
    def location(self) -> Path | None:
        """The folder of the files; None where the project has not set any.

        Raises ConfigurationError. A remote storage has no folder.
        """
        storage = storage_of(self.storage)
        if not isinstance(storage, FileSystemStorage):
            return None
        # Without MEDIA_ROOT, Django takes the working directory: that is not media.
        if os.fspath(storage.base_location) in ("", "."):
            return None
        return Path(storage.location)

    @property
    def remote(self) -> bool:
        """Whether the files lie elsewhere than in a local folder; raises ConfigurationError."""
        return not isinstance(storage_of(self.storage), FileSystemStorage)

    def named_files(self, snapshots: Mapping[str, Snapshot]) -> Iterator[str]:
        for snapshot in snapshots.values():
            with snapshot.reading() as using:
                yield from file_names(using, storage=self.storage)

    def targets(self, restore_id: str, contents: Contents, where: Where) -> Sequence[Restorable]:
        """Return the storage, or the new folder that the operator named, as the target.

        Raises RestoreError where the settings name no place.
        """
        target: Target
        if where.to_directory is None and self.remote:
            target = RemoteMediaTarget.prepare(storage=self.storage, restore_id=restore_id)
        else:
            location = where.to_directory or self.location
            if location is None:
                raise RestoreError(
                    _("The backup holds media, and the settings have no MEDIA_ROOT."),
                    hint=_("Set it, or name a folder with --to-media."),
                )
            target = MediaTarget.prepare(
                location=location, restore_id=restore_id, to_directory=where.to_directory
            )
        return [_restorable(target, contents)]

    def drill_target(self, drill_id: str, contents: Contents, folder: Path) -> Restorable:
        target = MediaTarget.prepare(location=folder, restore_id=drill_id, to_directory=folder)
        # A drill runs the project's code, which must find no way out of its folder.
        target.links = False
        return _restorable(target, contents)

    def restored_target(self, state: dict[str, Any], *, elsewhere: bool) -> Target:
        try:
            if state["type"] == "media":
                MediaTarget.check_state(state, None if elsewhere else self.location)
                return MediaTarget.from_state(state)
            require_own(state, {"type": "remote_media"})
            RemoteMediaTarget.check_state(state, self.storage)
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
        for record in read_records(openers[INDEX_NAME]()):
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
            found |= {"storage": self.storage} if self.remote else {"folder": self.location}
        return found

    def preflight(self) -> Iterator[Message]:
        if self.remote:
            objects = objects_in(self.storage)
            with failures(objects, _("list"), PreflightError):
                objects.require_listable()
        location = self.location
        if location is not None and resolved(location, PreflightError).exists():
            if not location.is_dir():
                raise PreflightError(
                    _("The media folder %(folder)s is no folder"), folder=str(location)
                )
            if not os.access(location, os.R_OK | os.X_OK):
                raise PreflightError(
                    _("The media folder %(folder)s cannot be read"),
                    hint=_("Run the backup as a user who may read it."),
                    folder=str(location),
                )
        return iter(())

    def artifacts(self, view: View) -> Iterator[Artifact]:
        location = self.location
        tree: Tree = FolderTree(location, follow_links=self.follow_links)
        if self.remote:
            tree = RemoteTree(objects_in(self.storage))
        collection = Collection(tree, view, root=location, changes=self._changes())
        members = collection.members()
        try:
            packer = Packer(members, self.pack_size)
            for pack, reader in packer.packs():
                yield Artifact(name=PACK_NAME, pool=pack, open=_opener(reader), check=check_pack)
            yield Artifact(
                name=INDEX_NAME,
                open=collection.index.open,
                check=check_lines,
                read_again=True,
                facts=collection.facts,
                warnings=collection.warnings,
            )
        except OSError as error:
            raise SourceError(
                _("The media folder %(folder)s cannot be read: %(reason)s"),
                folder=str(location),
                reason=error.strerror,
            ) from error
        finally:
            members.close()
            collection.close()


def _opener(reader: Reader) -> Callable[[], Reader]:
    return lambda: reader


def _total(facts: Mapping[str, Facts], key: str) -> int:
    return sum(saved.get(key, 0) for saved in facts.values())


def _restorable(target: Target, contents: Contents) -> Restorable:
    facts = contents[INDEX_NAME].facts if INDEX_NAME in contents else {}
    return Restorable(target=target, artifacts=[*contents], facts=facts)
