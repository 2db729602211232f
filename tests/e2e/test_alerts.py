"""Watchers as processes: one that is killed in the middle repeats, several at once do not."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mipyme_backup.schedule import JOBS
from tests.e2e.project import Project, sqlite_project
from tests.smtpd import MailServer, mail_server

SECONDS = 120
COMMAND = ("backup_status", "--alert", "--json")
CRITICAL = 2


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture
def project(mails: MailServer, tmp_path: Path) -> Iterator[Project]:
    """A project without any backup, whose mails go to `mails`."""
    with sqlite_project(tmp_path) as made:
        lines = [f"{name} = {value!r}\n" for name, value in mails.settings().items()]
        alerts = {"recipients": ["ana@example.org"], "digest": None}
        lines.append(f'MIPYME_BACKUP["ALERTS"] = {alerts!r}\n')
        lines.append(f'MIPYME_BACKUP["SCHEDULE"] = dict.fromkeys({JOBS!r})\n')
        elsewhere = {"BACKEND": "tests.faulty.FarAway", "OPTIONS": {"location": str(made.backups)}}
        lines.append(f'MIPYME_BACKUP["DESTINATIONS"] = {{"local": {elsewhere!r}}}\n')
        with (made.root / "config" / "settings.py").open("a") as settings:
            settings.writelines(lines)
        made.manage("migrate", "--verbosity=0")
        yield made


def start(project: Project) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        project.command(*COMMAND),
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_watcher_killed_before_its_record_repeats_the_mail_and_no_more(
    project: Project, mails: MailServer
) -> None:
    mails.answers.clear()
    project.backups.mkdir(mode=0o700)  # nothing but the missing backup is to be told
    with start(project) as watcher:
        deadline = time.monotonic() + SECONDS
        while not mails.mails and time.monotonic() < deadline:
            time.sleep(0.05)
        watcher.kill()
    mails.answers.set()
    assert len(mails.mails) == 1

    for _ in range(2):
        with start(project) as watcher:
            assert watcher.wait(SECONDS) == CRITICAL

    assert [str(mail["Subject"]).partition("] ")[2] for mail in mails.mails] == [
        "Backups: critical - 1 problem"
    ] * 2


def test_several_watchers_at_once_send_one_mail(project: Project, mails: MailServer) -> None:
    watchers = [start(project) for _ in range(3)]

    assert [watcher.wait(SECONDS) for watcher in watchers] == [CRITICAL] * 3
    assert len(mails.mails) == 1
