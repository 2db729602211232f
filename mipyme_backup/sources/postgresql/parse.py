"""The full parse of a dump: pg_restore reads it to its end and makes the SQL, which is dropped."""

from __future__ import annotations

from pathlib import Path

from mipyme_backup.errors import BackupError, DamagedError, KilledError
from mipyme_backup.messages import _
from mipyme_backup.process import Child, Reader
from mipyme_backup.sources.postgresql.archive import WholeDump
from mipyme_backup.sources.postgresql.tools import find_reader


def check_dump(reader: Reader, major: int, bin_dir: Path | None = None) -> None:
    """Raise DamagedError unless pg_restore can read the whole dump, which is of version `major`.

    ``pg_restore -l`` would not do: it accepts half of one.
    """
    tool = find_reader(major, bin_dir)
    child = Child([str(tool.path), "--file=/dev/null"], stdin=WholeDump(reader))
    try:
        child.wait()
    except KilledError:
        raise  # says nothing of the dump
    except BackupError as error:
        raise DamagedError(_("The dump cannot be read: %(reason)s"), reason=error) from error
    finally:
        child.close()
