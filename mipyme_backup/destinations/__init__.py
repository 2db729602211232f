"""Where copies live."""

from mipyme_backup.destinations.base import Destination, Entry
from mipyme_backup.destinations.local import LocalDestination

__all__ = ["Destination", "Entry", "LocalDestination"]
