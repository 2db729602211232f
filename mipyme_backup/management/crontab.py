"""The one line in the user's crontab that calls for what is due."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import sys
from pathlib import Path

from django.conf import ENVIRONMENT_VARIABLE

from mipyme_backup import process
from mipyme_backup.errors import PreflightError, ProcessError
from mipyme_backup.messages import _
from mipyme_backup.schedule import BEAT_MINUTES

NO_CRONTAB = "no crontab for"
AS_IT_IS = "surrogateescape"
"""How bytes that are no UTF-8 are read and written: other people's lines stay what they are."""


def line() -> str:
    """Return the line: the command in the folder, with the Python and the settings, of now."""
    folder, command = Path.cwd(), [sys.executable, "-m", "django"]
    if Path(sys.argv[0]).name == "manage.py":
        command = [sys.executable, os.path.abspath(sys.argv[0])]
    settings = os.environ.get(ENVIRONMENT_VARIABLE)
    environment = [f"{ENVIRONMENT_VARIABLE}={settings}"] if settings else []
    call = shlex.join(
        ["env", *environment, *command, "schedule_backups", "run-due", "--verbosity", "0"]
    )
    # To cron, a percent sign ends the line.
    text = f"cd {shlex.quote(str(folder))} && {call}".replace("%", r"\%")
    return f"{BEAT_MINUTES} * * * * {text} {_marker()}"


def is_installed() -> bool:
    """Say whether the line is there; False where there is no cron, or none for this user."""
    try:
        return any(_is_ours(text) for text in _read())
    except (PreflightError, ProcessError):
        return False


def install(text: str) -> None:
    """Write the line in place of the one of before; other lines stay as they are.

    Raises PreflightError where there is no cron, ProcessError where it refuses.
    """
    _write([*(other for other in _read() if not _is_ours(other)), text])


def remove() -> bool:
    """Take the line out; says whether it was there. Raises as `install` does."""
    before = _read()
    after = [other for other in before if not _is_ours(other)]
    if len(after) == len(before):
        return False
    _write(after)
    return True


def _marker() -> str:
    """Return what marks the line of this project: its folder, since a host may have several."""
    return f"# mipyme_backup {shlex.quote(str(Path.cwd()))}".replace("%", r"\%")


def _is_ours(text: str) -> bool:
    return text.rstrip().endswith(_marker())


def _read() -> list[str]:
    if shutil.which("crontab") is None:
        raise PreflightError(
            _("There is no cron on this machine: the program crontab is missing."),
            hint=_(
                "Debian: apt-get install cron. Or call schedule_backups run-due by other means."
            ),
        )
    try:
        table = process.run(["crontab", "-l"], errors=AS_IT_IS)
    except ProcessError as error:
        if NO_CRONTAB in str(error):
            return []
        raise
    return table.removesuffix("\n").split("\n") if table else []


def _write(lines: list[str]) -> None:
    content = "".join(f"{text}\n" for text in lines)
    process.run(["crontab", "-"], stdin=io.BytesIO(content.encode(errors=AS_IT_IS)))
