"""Where copies live."""

from mipyme_backup.destinations.base import Destination
from mipyme_backup.destinations.listing import Entry
from mipyme_backup.destinations.local import LocalDestination
from mipyme_backup.destinations.rsync import RsyncDestination
from mipyme_backup.destinations.storage import StorageDestination

__all__ = ["Destination", "Entry", "LocalDestination", "RsyncDestination", "StorageDestination"]
