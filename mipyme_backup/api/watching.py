"""Looks at how the backups are, and who is told of it."""

from __future__ import annotations

import contextlib
import hmac
import logging
import socket
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime

from mipyme_backup import conf
from mipyme_backup.api.given import zone
from mipyme_backup.catalog import Catalog
from mipyme_backup.encryption.passphrase import read_secret
from mipyme_backup.errors import (
    BackupError,
    LockedError,
    NoBackupError,
    SlotDoneError,
    TooSoonError,
    UsageError,
    reason_of,
)
from mipyme_backup.messages import Message, _
from mipyme_backup.monitoring import heartbeat as heartbeats
from mipyme_backup.monitoring import last_look as last_looks
from mipyme_backup.monitoring import notifications, run_end
from mipyme_backup.monitoring import status as monitoring
from mipyme_backup.monitoring.channels import channels_of
from mipyme_backup.monitoring.delivery import Delivery
from mipyme_backup.monitoring.notifications import Watched
from mipyme_backup.monitoring.status import Status
from mipyme_backup.monitoring.told import Records
from mipyme_backup.operations.project import Project
from mipyme_backup.parts import build_project
from mipyme_backup.policy.status import Finding
from mipyme_backup.policy.status_facts import Facts, Policy
from mipyme_backup.policy.status_proof import DRILL_EVERY, VERIFY_WITHIN

STATUS_SECONDS = 30.0

logger = logging.getLogger("mipyme_backup")


def status(*, timeout: float = STATUS_SECONDS) -> Status:
    """Return how the backups are; a destination silent for `timeout` seconds is unreachable.

    A small object is written to each destination that can be listed, and deleted again: only so
    is it known whether it takes backups, and lets us delete. Raises UsageError for a timeout
    that is not above zero.
    """
    return look_at(build_project(retry_for=timeout / 4), timeout)


def watch(*, timeout: float = STATUS_SECONDS, now: datetime | None = None) -> Watched:
    """Look as `status` does, and tell the channels of ALERTS what they do not know yet.

    No channel raises; what could not be sent is sent by the next look. Where the look itself fails,
    that is told, and its error raised.
    """
    settings = conf.load()
    records, channels = Records(settings.state_dir), channels_of(settings.alerts)
    records.prepare()
    digest = settings.alerts["digest"]
    try:
        seen = look_at(build_project(retry_for=timeout / 4), timeout, now)
    except UsageError:
        raise
    except Exception as error:
        blind = _unseen(settings, [_cannot_tell(error)], now)
        last_looks.keep(Catalog(), blind)
        notifications.tell(blind, channels, records, digest=digest, sees_all=False)
        raise
    return notifications.tell(seen, channels, records, digest=digest)


def is_monitor(token: str) -> bool:
    """Say whether `token` is the one of MONITORING_TOKEN_FILE; False where the settings have none.

    Raises EncryptionError where the file cannot be read, or not safely.
    """
    path = conf.load().monitoring_token_file
    return path is not None and hmac.compare_digest(token.encode(), read_secret(path))


def alert_channels() -> list[str]:
    """Return the names of the channels of ALERTS: without any, nobody is told of anything."""
    return [channel.name for channel in channels_of(conf.load().alerts)]


def test_alert() -> list[Delivery]:
    """Send a test message to each channel of ALERTS, and return what became of each."""
    settings = conf.load()
    return notifications.test(_unseen(settings, [], None), channels_of(settings.alerts))


def heartbeat(event: heartbeats.Event, text: str = "") -> Delivery | None:
    """Ping the heartbeat of ALERTS: ``start``, ``success`` or ``fail``; None where there is none.

    `text` goes along, and must hold no secret. A ping that fails is a warning in the log, and never
    raises; UsageError is for an event that does not exist.
    """
    if event not in heartbeats.EVENTS:
        raise UsageError(_("There is no event %(event)s of a heartbeat."), event=event)
    url = conf.load().alerts["heartbeat_url"]
    return None if url is None else heartbeats.ping(url, event, text)


@contextlib.contextmanager
def ends_with_check(project: Project) -> Iterator[set[str]]:
    """Check at the end of a run, so that the kept look shows what it did; add what it proved.

    Those are the names of destinations that took a copy. A run that fails is checked as well, not
    one that did nothing, nor one that is ended from outside. The check makes no run fail.
    """
    proven: set[str] = set()
    try:
        yield proven
    except (UsageError, LockedError, NoBackupError, SlotDoneError, TooSoonError):
        raise
    except Exception:
        _check(project, proven)
        raise
    _check(project, proven)


def _check(project: Project, proven: Collection[str]) -> None:
    try:
        settings = conf.load()
        run_end.check(
            project,
            _policy(settings),
            schedule=settings.schedule,
            host=socket.gethostname(),
            proven=proven,
        )
    except Exception as error:  # noqa: BLE001 - the run is done, whatever the check meets
        logger.info("The check after the run could not be made: %s", reason_of(error))


def look_at(project: Project, timeout: float, now: datetime | None = None) -> Status:
    """Look as `status` says, and keep what was seen."""
    if not timeout > 0:
        raise UsageError(_("The timeout must be above zero."))
    settings = conf.load()
    seen = monitoring.take(
        project,
        _policy(settings),
        schedule=settings.schedule,
        host=socket.gethostname(),
        seconds=timeout,
        now=now,
    )
    last_looks.keep(project.catalog, seen)
    return seen


def _policy(settings: conf.Settings) -> Policy:
    alerts, schedule = settings.alerts, settings.schedule
    return Policy(
        max_age=alerts["max_age"],
        min_size=alerts["min_size"],
        min_free_disk=alerts["min_free_disk"],
        max_shrink=alerts["max_shrink"],
        rto=settings.rto,
        verify_within=VERIFY_WITHIN if schedule["verify"] else None,
        drill_every=DRILL_EVERY if schedule["drill"] else None,
        review=settings.policy_review,
        zone=zone(),
    )


def _unseen(settings: conf.Settings, findings: Sequence[Finding], now: datetime | None) -> Status:
    """Return a status without a look."""
    return Status(
        project=settings.project,
        host=socket.gethostname(),
        at=now or datetime.now(UTC),
        facts=Facts(destinations=[], backups=[]),
        findings=findings,
    )


def _cannot_tell(error: Exception) -> Finding:
    reason: object = type(error).__name__
    hint = Message(_("Run it by hand, that says more: manage.py backup_status"))
    if isinstance(error, BackupError):
        reason, hint = error.message, error.hint if error.hint.text else hint
    return Finding(
        id="cannot_tell",
        level="critical",
        message=Message(_("How the backups are cannot be told: %(reason)s"), {"reason": reason}),
        hint=hint,
    )
