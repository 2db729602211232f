"""A host to which happens what a plan says, and what its people hear of it.

It is a process whose clock is moved; it is killed and started anew, backs up, verifies, prunes,
drills and tells, by SMTP and TLS. Its destinations are folders that go away, its stored bytes flip.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.moved_clock import Host, moved_gpg, moved_host, set_clock
from tests.e2e.project import Project, sqlite_project
from tests.e2e.troubles import DAY, DESTINATIONS, DRILLS, Message, Plan, within
from tests.https_server import HTTPSServer, https_server
from tests.keyrings import Ring, keyring
from tests.smtpd import MailServer, mail_server

SETTINGS = """
import json
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "mipyme_backup"]
TIME_ZONE = {zone!r}
globals().update({mail!r})
_turned = json.loads((BASE_DIR / "turned.json").read_text())
MIPYME_BACKUP = {{
    "DESTINATIONS": {{
        name: {{
            "BACKEND": "mipyme_backup.destinations.LocalDestination",
            "OPTIONS": {{"location": BASE_DIR / "disks" / name / "backups"}},
        }}
        for name in {destinations!r}
    }},
    "STATE_DIR": BASE_DIR / "state",
    "SCHEDULE": {{"drill": {drills!r}}},
    "ENCRYPTION": {encryption!r},
    "SIGNING_KEY_FILE": BASE_DIR / "passphrase" if {encryption!r} else None,
    "POLICY_REVIEW": datetime.date.fromisoformat(_turned["review"]),
    "ALERTS": {{
        "recipients": ["ana@example.org"],
        "webhooks": [{hook!r}],
        "min_free_disk": _turned["min_free_disk"],
    }},
}}
"""

MEANT = {
    r"Every copy is on this server": "copies_here",
    r"Backups are not encrypted": "not_encrypted",
    r"The destination (\w+) cannot be reached": "destination_unreachable:{}",
    r"Copying the newest backup, \S+, to (\w+) failed": "copy_failed:{}",
    r"The newest backup, \S+, is damaged on (\w+)": "copy_damaged:{}",
    r"The newest backup, \S+, has no good copy": "newest_damaged",
    r"The newest good backup, \S+, is .* old; .* allowed": "backup_old",
    r"No backup was made when the schedule asked for one \((\w+)": "slot_missed:{}",
    r"The last run, \S+, failed": "last_run_failed",
    r"The scheduled job (\w+) failed": "job_failing:{}",
    r"The disk of (\w+) has": "disk_low:{}",
    r"Of the newest backups on (\w+) that are older": "verify_overdue:{}",
    r"The last restore drill was": "drill_overdue",
    r"A key that backups are encrypted to expires": "key_expiring",
    r"The review of the backup policy was due": "policy_review_overdue",
}
"""What a mail says in words, by the beginning of its sentence."""


class TroubledHost:
    """The host and what is around it; `heard` is by channel, `failures` by wake-up."""

    def __init__(
        self,
        plan: Plan,
        project: Project,
        host: Host,
        mails: MailServer,
        hooks: HTTPSServer,
        ring: Ring | None,
    ) -> None:
        self.heard: dict[str, list[Message]] = {"mail": [], "webhook": []}
        self.failures: dict[datetime, set[str]] = {}
        self.starts = 1
        self._plan = plan
        self._project = project
        self._host = host
        self._mails = mails
        self._hooks = hooks
        self._ring = ring
        self._at = {damage.at: damage for damage in plan.damages}
        self._mended = {damage.mended: damage for damage in plan.damages if damage.mended}
        self._hurt: dict[datetime, str] = {}
        self._disks = project.root / "disks"
        for name in DESTINATIONS:
            (self._disks / f"{name} itself").mkdir(parents=True)
            (self._disks / name).symlink_to(f"{name} itself")

    def live(self, before: datetime | None, now: datetime) -> None:
        """Let what happened since the wake-up `before` happen, then have the host do its work."""
        if before is not None and any(before < begin <= now for begin, _end in self._plan.off):
            self._restart()
        self._turn(now)
        self._move(now)
        self._damage(now)
        self._prolong(before, now)
        self._mails.refuse = "451 later" if within(self._plan.deaf.get("mail", ()), now) else None
        self._hooks.status = 503 if within(self._plan.deaf.get("webhook", ()), now) else 200
        if now.hour == 12:
            (self._project.media / "changing").write_text(now.isoformat())
        if now in self._plan.killed:
            self._kill_backup(now)
        else:
            failed = {one["job"] for one in self._host.run(now) if one["outcome"] == "failed"}
            if failed:
                self.failures[now] = failed
        self._listen(now)

    def _restart(self) -> None:
        self._host.kill()
        self.starts += 1

    def _turn(self, now: datetime) -> None:
        """Write the settings that people change; a running host does not see it."""
        review = self._plan.review
        due = date(2030, 1, 1) if review is None or now >= review[1] else review[0]
        low = within(self._plan.low_disk, now)
        text = json.dumps({"review": due.isoformat(), "min_free_disk": 1.0 if low else 0.0})
        file = self._project.root / "turned.json"
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            self._restart()

    def _move(self, now: datetime) -> None:
        for name in DESTINATIONS:
            disk = self._disks / f"{name} itself"
            drawer = self._disks / f"{name} in a drawer"
            away = within(self._plan.away.get(name, ()), now)
            if away and disk.exists():
                disk.rename(drawer)
            elif not away and drawer.exists():
                drawer.rename(disk)

    def _damage(self, now: datetime) -> None:
        if damage := self._at.get(now):
            for name in damage.destinations:
                folder = max((self._disks / name / "backups").glob("mipyme_backup_*"))
                manifest = json.loads((folder / "manifest.json").read_text())
                self._hurt[damage.at] = manifest["id"]
                (volume,) = folder.glob("database.*")
                stored = bytearray(volume.read_bytes())
                stored[len(stored) // 2] ^= 1
                volume.write_bytes(stored)
        if damage := self._mended.get(now):
            identifier = self._hurt[damage.at]
            for name in damage.destinations:
                self._host.run(now, "backup", "--complete", identifier, "--destination", name)
            self._host.run(now, "verify_backups", identifier)

    def _prolong(self, before: datetime | None, now: datetime) -> None:
        if self._ring is None or self._plan.key is None or before is None:
            return
        if before < self._plan.key[1] <= now:
            for keys in ([], ["*"]):
                self._ring.run("--quick-set-expire", self._ring.fingerprint, "3y", *keys)

    def _kill_backup(self, now: datetime) -> None:
        self._host.begin(now)
        deadline = time.monotonic() + 60
        while not [*(self._project.root / "state" / "runs").glob("*.json")]:
            assert time.monotonic() < deadline, self._host.log()
            time.sleep(0.001)
        self._restart()

    def _listen(self, now: datetime) -> None:
        mails, self._mails.mails = self._mails.mails, []
        for mail in mails:
            self.heard["mail"].append(_of_mail(mail.get_content(), now))
        requests, self._hooks.requests = self._hooks.requests, []
        for request in requests if self._hooks.status == 200 else ():
            self.heard["webhook"].append(_of_webhook(json.loads(request.body), now))


def _of_webhook(document: dict[str, Any], at: datetime) -> Message:
    begun, ended = ([one["id"] for one in document[key]] for key in ("raised", "cleared"))
    assert len({*begun, *ended}) == len(begun) + len(ended), document
    return Message(at=at, begun=frozenset(begun), ended=frozenset(ended))


def _of_mail(text: str, at: datetime) -> Message:
    said: dict[str, list[str]] = {"New:": [], "Ended:": []}
    for paragraph in text.replace("\r\n", "\n").split("\n\n"):
        title, *lines = paragraph.splitlines()
        if title in said:
            said[title] = [_meaning(line) for line in lines if line.startswith("* ")]
    begun, ended = said.values()
    assert len({*begun, *ended}) == len(begun) + len(ended), text
    return Message(at=at, begun=frozenset(begun), ended=frozenset(ended))


def _meaning(line: str) -> str:
    sentence = re.sub(r"^\* (WARNING: |CRITICAL: )?", "", line)
    for pattern, name in MEANT.items():
        if match := re.match(pattern, sentence):
            return name.format(*match.groups())
    raise AssertionError(f"nobody foresaw this: {line}")


@contextlib.contextmanager
def troubled_host(plan: Plan, workdir: Path, gpg: Path) -> Iterator[TroubledHost]:
    clock = workdir / "clock"
    set_clock(clock, plan.wakes[0] - DAY)
    tools = moved_gpg(workdir / "bin", clock, gpg)
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        mails = stack.enter_context(mail_server())
        hooks = stack.enter_context(https_server(workdir))
        ring, encryption = None, None
        if plan.key is not None:
            lasts = f"seconds={int((plan.key[0] - plan.wakes[0] + DAY).total_seconds())}"
            ring = stack.enter_context(keyring("shop", expires=lasts))
            options = {"recipients": [ring.fingerprint], "home": str(ring.home)}
            encryption = {"BACKEND": "mipyme_backup.encryption.GPG", "OPTIONS": options}
        project = stack.enter_context(sqlite_project(workdir / "site"))
        project.more_settings = SETTINGS.format(
            zone=plan.zone.key,
            mail=mails.settings(),
            destinations=DESTINATIONS,
            drills=DRILLS,
            encryption=encryption,
            hook=hooks.url(),
        )
        project.write()
        project.media.mkdir()
        process = stack.enter_context(
            moved_host(project, clock, {"SSL_CERT_FILE": str(hooks.authority)})
        )
        host = TroubledHost(plan, project, process, mails, hooks, ring)
        (project.root / "turned.json").write_text('{"review": "2030-01-01", "min_free_disk": 0.0}')
        project.manage("migrate", "--verbosity=0")
        yield host
