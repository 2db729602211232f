"""What is saved: databases, fixtures, media, other folders."""

from mipyme_backup.sources.base import Source
from mipyme_backup.sources.database import DatabaseSource
from mipyme_backup.sources.fixtures import FixturesSource
from mipyme_backup.sources.folder import FolderSource
from mipyme_backup.sources.media import MediaSource

__all__ = ["DatabaseSource", "FixturesSource", "FolderSource", "MediaSource", "Source"]
