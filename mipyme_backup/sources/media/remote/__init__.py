"""Media that lives on a remote storage: S3, SFTP, any other storage of Django.

A storage is spoken to by `generic` (any), `s3` and `sftp`, behind the interface in `objects`;
`tree` reads it for a backup, `target` brings a backup back to it.
"""

from mipyme_backup.sources.media.remote.families import objects_in
from mipyme_backup.sources.media.remote.target import RemoteMediaTarget
from mipyme_backup.sources.media.remote.tree import RemoteTree

__all__ = ["RemoteMediaTarget", "RemoteTree", "objects_in"]
