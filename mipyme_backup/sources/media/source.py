"""Saves the files of a Django file storage: one that keeps them in a folder, or a remote one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage

from mipyme_backup.errors import ConfigurationError, PreflightError, RestoreError, SourceError
from mipyme_backup.messages import Message, _
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Artifact, Source, Target, View, require_own
from mipyme_backup.sources.content import check_lines
from mipyme_backup.sources.media.check import check_pack
from mipyme_backup.sources.media.collection import Collection
from mipyme_backup.sources.media.contents import FolderTree
from mipyme_backup.sources.media.index import INDEX_NAME
from mipyme_backup.sources.media.location import resolved
from mipyme_backup.sources.media.packs import Packer
from mipyme_backup.sources.media.remote import RemoteMediaTarget, RemoteTree, objects_in
from mipyme_backup.sources.media.remote.failures import failures
from mipyme_backup.sources.media.remote.families import storage_of
from mipyme_backup.sources.media.target import MediaTarget
from mipyme_backup.sources.media.tree import Tree

PACK_SIZE = 512 * 1024 * 1024
PACK_NAME = "files.tar"
TARGETS: Mapping[str, type[MediaTarget] | type[RemoteMediaTarget]] = {
    "media": MediaTarget,
    "remote_media": RemoteMediaTarget,
}
"""The targets of media by the ``type`` in their state."""


class MediaSource(Source):
    """The files of the storage `storage`, in packs of about `pack_size` bytes.

    Yields the packs that are new in this run, then the index of all files.
    """

    name = "media"

    def __init__(self, storage: str = "default", pack_size: int = PACK_SIZE) -> None:
        self.storage = storage
        self.pack_size = pack_size

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

    @property
    def has_place(self) -> bool:
        """Whether the settings say where media is; raises ConfigurationError."""
        return self.remote or self.location is not None

    def is_absent(self, view: View) -> bool:
        """As in the base: where rows name files all the same, what is missing is to be told."""
        return not self.has_place and next(iter(view.expected_files), None) is None

    def target(self, *, restore_id: str, to_directory: Path | None = None) -> Target:
        """Return where media is restored to: the storage, or a new folder `to_directory`.

        Raises RestoreError where the settings name no place.
        """
        if to_directory is None and self.remote:
            return RemoteMediaTarget.prepare(storage=self.storage, restore_id=restore_id)
        location = to_directory or self.location
        if location is None:
            raise RestoreError(
                _("The backup holds media, and the settings have no MEDIA_ROOT."),
                hint=_(
                    "Set it, and restore again. Or restore the rest with --only database, and the"
                    " media into a folder with --only media --to-media DIR."
                ),
            )
        return MediaTarget.prepare(
            location=location, restore_id=restore_id, to_directory=to_directory
        )

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
        tree: Tree = FolderTree(location)
        if self.remote:
            tree = RemoteTree(objects_in(self.storage))
        collection = Collection(tree, view, root=location)
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


def restored_target(source: MediaSource, state: Mapping[str, Any], *, elsewhere: bool) -> Target:
    """Return the target that a state was taken from.

    Raises RestoreError where its storage is unknown, and StateError where it names other places
    than those of `source`; only what was restored `elsewhere` lies where the operator said.
    """
    try:
        if state["type"] == "media":
            location = None if elsewhere else source.location
            if location is None and not elsewhere:
                require_own(state, {"location": None})
            MediaTarget.check_state(state, location)
        else:
            RemoteMediaTarget.check_state(state, source.storage)
        return TARGETS[state["type"]].from_state(dict(state))
    except ConfigurationError as error:
        raise RestoreError(
            _("A restore of the media in the storage %(alias)s is kept: %(reason)s"),
            hint=_("Put it back into STORAGES until KEEP_REPLACED_HOURS are over."),
            alias=state["storage"],
            reason=error,
        ) from error
