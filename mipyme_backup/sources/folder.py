"""The files of a folder that is no storage: certificates, settings, what the web server reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mipyme_backup.errors import ConfigurationError, PreflightError
from mipyme_backup.messages import _
from mipyme_backup.sources.media.files import FileOptions, FileSource, escaped


class FolderSource(FileSource):
    """All files below `folder`, an absolute path; for the other options see `FileOptions`.

    They are saved with each backup and restored only when they are named: on a new server they
    may be of the old one's name and addresses. A folder that is missing or cannot be read makes
    the backup partial.
    """

    name = "folder"
    restored_by_default = False

    def __init__(self, folder: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(FileOptions(**options), required=False)
        self._folder = Path(folder)
        if not self._folder.is_absolute():
            raise ConfigurationError(
                _("The folder %(folder)s of a FolderSource is no absolute path."),
                hint=_("Write it from / on, or as BASE_DIR / ..."),
                folder=folder,
            )

    @property
    def index_stem(self) -> str:
        return escaped(self.name)

    @property
    def location(self) -> Path:
        return self._folder

    def _require_listable(self) -> None:
        if not self._folder.exists():
            raise PreflightError(_("%(folder)s does not exist."), folder=self._folder)
        super()._require_listable()
