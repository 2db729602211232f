"""The media files of a project: stored once by content, in packs that backups share."""

from mipyme_backup.sources.media.check import check_files
from mipyme_backup.sources.media.remote import RemoteMediaTarget
from mipyme_backup.sources.media.source import MediaSource
from mipyme_backup.sources.media.target import MediaTarget

__all__ = ["MediaSource", "MediaTarget", "RemoteMediaTarget", "check_files"]
