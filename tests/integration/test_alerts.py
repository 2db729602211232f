"""Alerts as they arrive: mails by SMTP, webhooks by TLS, signals; once each, whatever fails."""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from mipyme_backup import api, signals
from mipyme_backup.errors import BackupError, UsageError
from mipyme_backup.models import Copy
from mipyme_backup.monitoring import exchange, notifications
from mipyme_backup.monitoring.https import Client
from mipyme_backup.monitoring.mail import Mail
from mipyme_backup.monitoring.notice import Notice
from mipyme_backup.monitoring.notifications import Watched
from mipyme_backup.monitoring.told import Records
from mipyme_backup.monitoring.webhooks import Webhook
from tests.https_server import HTTPSServer, https_server
from tests.smtpd import MailServer, mail_server

TOKEN = "canary-77aa"
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _reachable(backups: Path) -> None:
    """Let the one destination be there, so that nothing but the missing backup is to be told."""
    backups.mkdir(mode=0o700)


@pytest.fixture
def mails(settings: Any) -> Iterator[MailServer]:
    """A mail server, which the settings name."""
    with mail_server() as server:
        for name, value in server.settings().items():
            setattr(settings, name, value)
        settings.ADMINS = [("Ana", "ana@example.org")]
        settings.DEFAULT_FROM_EMAIL = "shop@example.org"
        yield server


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPSServer]:
    """An https server that is trusted, and whose address counts as one of the internet."""
    with https_server(tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
        monkeypatch.setattr(exchange, "is_public", lambda address: address == "127.0.0.1")
        yield server


def alerts(settings: Any, **entries: Any) -> None:
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "ALERTS": {"digest": None, **entries}}


def texts(mails: MailServer) -> list[str]:
    return [mail.get_content().replace("\r\n", "\n") for mail in mails.mails]


def subjects(mails: MailServer) -> list[str]:
    return [str(mail["Subject"]) for mail in mails.mails]


def documents(hooks: HTTPSServer) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in hooks.requests]


def told(watched: Watched) -> list[str]:
    """Return which channels were told something now."""
    return [one.channel for one in watched.deliveries if one.event and not one.failed]


def run(*args: str) -> tuple[int, str]:
    out = io.StringIO()
    try:
        call_command("backup_status", *args, stdout=out, stderr=io.StringIO())
    except CommandError as error:
        return error.returncode, out.getvalue()
    return 0, out.getvalue()


class TestMail:
    def test_problem_is_told_once_and_its_end_once(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        alerts(settings)

        api.watch()
        api.watch()
        assert subjects(mails) == ["[tests] Backups: critical - 1 problem"]
        api.backup()
        api.watch()
        api.watch()

        assert subjects(mails)[1:] == ["[tests] Backups: fine again"]
        bad, good = texts(mails)
        assert "* CRITICAL: There is no good backup that holds everything." in bad
        assert "-> Take one: manage.py backup" in bad
        assert "Ended:\n* There is no good backup that holds everything. (since " in good
        assert "Well:\n* The newest good backup is manual_" in good

    def test_mail_says_where_and_when(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        alerts(settings)

        api.watch(now=datetime(2025, 7, 1, 22, 30, tzinfo=UTC))

        (mail,) = mails.mails
        first = texts(mails)[0].partition("\n")[0]
        assert first == f"tests on {socket.gethostname()}, 2025-07-02 00:30 Europe/Madrid"
        assert mail["From"] == "shop@example.org"
        assert mail["Auto-Submitted"] == "auto-generated"
        assert mails.recipients == [["ana@example.org"]]

    def test_recipients_come_before_the_admins(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        alerts(settings, recipients=["one@example.org", "Two <two@example.org>"])

        api.watch()

        assert mails.recipients == [["one@example.org", "two@example.org"]]

    def test_recipients_that_are_others_than_before_are_told_what_is_wrong(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        """The address was misspelt: who reads the right one knows nothing yet."""
        for recipients in (["amn@example.org"], ["ann@example.org"], ["ann@example.org"]):
            alerts(settings, recipients=recipients)
            api.watch()

        assert [mail["To"] for mail in mails.mails] == ["amn@example.org", "ann@example.org"]

    def test_server_email_comes_before_the_default(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        settings.SERVER_EMAIL = "errors@example.org"
        alerts(settings)

        api.watch()

        assert mails.mails[0]["From"] == "errors@example.org"

    def test_name_of_the_project_adds_no_header(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        settings.MIPYME_BACKUP = {
            **settings.MIPYME_BACKUP,
            "PROJECT": "shop\r\nBcc: thief@example.org",
        }
        alerts(settings)

        api.watch()

        (mail,) = mails.mails
        assert mail["Bcc"] is None
        assert mails.recipients == [["ana@example.org"]]

    def test_without_recipients_there_are_no_mails(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        alerts(settings, recipients=[])

        assert api.watch().deliveries == []
        assert mails.mails == []

    def test_silent_mail_server_keeps_nobody_waiting_for_ever(
        self, backups: Path, settings: Any, mails: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mipyme_backup.monitoring.mail.SECONDS", 0.5)
        alerts(settings)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            settings.EMAIL_PORT = silent.getsockname()[1]

            (delivery,) = api.watch().deliveries

        assert (delivery.channel, delivery.failed) == ("e-mail", True)


class TestWebhook:
    def test_shape_is_the_documented_one(
        self, backups: Path, settings: Any, hooks: HTTPSServer
    ) -> None:
        alerts(settings, recipients=[], webhooks=[hooks.url(f"/hook?token={TOKEN}")])
        at = datetime.now(UTC)

        api.watch(now=at)
        api.backup()
        api.watch(now=at + HOUR)

        finding = {
            "id": "no_backup",
            "level": "critical",
            "message": "There is no good backup that holds everything.",
            "hint": "Take one: manage.py backup",
        }
        common = {"version": 1, "project": "tests", "host": socket.gethostname()}
        assert documents(hooks) == [
            {
                **common,
                "event": "raised",
                "at": at.isoformat(),
                "level": "critical",
                "raised": [finding],
                "cleared": [],
                "findings": [finding],
            },
            {
                **common,
                "event": "cleared",
                "at": (at + HOUR).isoformat(),
                "level": "ok",
                "raised": [],
                "cleared": [
                    {
                        "id": "no_backup",
                        "level": "critical",
                        "message": finding["message"],
                        "since": at.isoformat(),
                    }
                ],
                "findings": [],
            },
        ]
        assert hooks.requests[0].headers["Content-Type"] == "application/json"

    def test_no_token_gets_into_the_log_the_result_or_the_record(
        self, backups: Path, settings: Any, hooks: HTTPSServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        alerts(settings, recipients=[], webhooks=[hooks.url(f"/{TOKEN}?t={TOKEN}")])
        hooks.status = 500

        with caplog.at_level(logging.DEBUG):
            watched = api.watch()

        records = [*(backups.with_name("state") / "alerts").iterdir()]
        assert len(records) > 2
        assert TOKEN not in "".join(f"{path.name} {path.read_text()}" for path in records)
        assert TOKEN not in caplog.text + repr(watched) + json.dumps(watched.to_dict())
        assert "webhook 127.0.0.1 has not arrived: 127.0.0.1 answers 500." in caplog.text

    def test_address_inside_is_refused_and_the_mail_is_sent(
        self, backups: Path, settings: Any, mails: MailServer, tmp_path: Path
    ) -> None:
        with https_server(tmp_path) as inside:
            alerts(settings, webhooks=[inside.url()])

            mail, hook = api.watch().deliveries

        assert (mail.failed, hook.failed) == (False, True)
        assert "not of the public internet" in hook.error
        assert inside.requests == []


class TestAtLeastOnce:
    def test_channel_that_was_away_is_told_later_and_the_others_not_again(
        self, backups: Path, settings: Any, mails: MailServer, hooks: HTTPSServer
    ) -> None:
        second = hooks.url("/second")
        alerts(settings, webhooks=[hooks.url("/first"), second])
        mails.refuse = "451 later"

        first = api.watch()
        assert told(first) == ["webhook 127.0.0.1"] * 2
        assert first.deliveries[0].error == "SMTPSenderRefused 451"
        mails.refuse = None
        assert told(api.watch()) == ["e-mail"]
        assert told(api.watch()) == []

        assert subjects(mails) == ["[tests] Backups: critical - 1 problem"]
        assert [request.path for request in hooks.requests] == ["/first", "/second"]

    def test_problem_that_passed_while_a_channel_was_away_is_told(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        alerts(settings)
        mails.refuse = "451 later"
        api.watch()
        api.backup()
        mails.refuse = None

        api.watch()

        assert subjects(mails) == ["[tests] Backups: fine again"]
        assert "There is no good backup" in texts(mails)[0]

    def test_death_between_message_and_record_repeats_it(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        class Dying(Mail):
            def send(self, notice: Notice) -> None:
                super().send(notice)
                raise SystemExit(143)

        status, records = api.status(), Records(backups.with_name("state"))
        with pytest.raises(SystemExit):
            notifications.tell(status, [Dying(["a@example.org"])], records, digest=None)

        for _ in range(2):
            notifications.tell(status, [Mail(["a@example.org"])], records, digest=None)

        assert len(mails.mails) == 2

    def test_record_that_cannot_be_written_keeps_no_alert_back(
        self, backups: Path, settings: Any, mails: MailServer, workdir: Path
    ) -> None:
        status = api.status()
        (workdir / "file").touch()

        records = Records(workdir / "file")
        notifications.tell(status, [Mail(["a@example.org"])], records, digest=None)

        assert len(mails.mails) == 1

    def test_damaged_record_is_told_anew(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        alerts(settings)
        api.watch()
        (record,) = (backups.with_name("state") / "alerts").glob("mail-*.json")
        record.write_text("{")

        api.watch()
        api.watch()

        assert len(mails.mails) == 2

    def test_two_watchers_at_once_tell_once(self, backups: Path, hooks: HTTPSServer) -> None:
        status, state = api.status(), backups.with_name("state")
        hooks.delay = 0.5
        results: list[Watched] = []

        def watch() -> None:
            client = Client(context=hooks.context, allow_private=True)
            hook = Webhook(hooks.url(), client)
            results.append(notifications.tell(status, [hook], Records(state), digest=None))

        threads = [threading.Thread(target=watch) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(hooks.requests) == 1
        assert sorted(len(told(result)) for result in results) == [0, 0, 0, 1]


def test_schedule_looks_and_tells(backups: Path, settings: Any, mails: MailServer) -> None:
    alerts(settings)

    first = api.run_job(job="status", slot=datetime.now(UTC) - HOUR)
    second = api.run_job(job="status", slot=datetime.now(UTC))

    assert (first.ending, second.ending) == ("done", "done")
    assert subjects(mails) == ["[tests] Backups: critical - 1 problem"]


def test_scheduled_look_that_could_not_be_told_has_failed(
    backups: Path, settings: Any, mails: MailServer, hooks: HTTPSServer
) -> None:
    alerts(settings, webhooks=[hooks.url(f"/{TOKEN}")])
    hooks.status = 500

    outcome = api.run_job(job="status", slot=datetime.now(UTC))
    hooks.status = 200
    again = api.run_job(job="status", slot=datetime.now(UTC))

    assert (outcome.ending, again.ending) == ("failed", "done")
    assert str(outcome.error) == (
        "An alert to webhook 127.0.0.1 has not arrived: 127.0.0.1 answers 500."
    )
    assert len(mails.mails) == 1 and len(hooks.requests) == 2


class TestDigest:
    def test_digest_comes_weekly_and_says_that_all_is_well(
        self, backups: Path, settings: Any, mails: MailServer, hooks: HTTPSServer
    ) -> None:
        alerts(settings, digest="weekly", max_age=60 * DAY, webhooks=[hooks.url()])
        api.backup()
        began = datetime.now(UTC)

        for day in range(15):
            Copy.objects.update(verified_at=began + day * DAY)
            api.watch(now=began + day * DAY)

        assert subjects(mails) == ["[tests] Backups: fine (report)"] * 3
        assert [document["event"] for document in documents(hooks)] == ["digest"] * 3
        assert "* local takes backups, and holds 1." in texts(mails)[0]

    def test_digest_repeats_what_is_still_wrong(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        alerts(settings, digest="daily")
        began = datetime.now(UTC)

        api.watch(now=began)
        api.watch(now=began + DAY)

        assert subjects(mails) == [
            "[tests] Backups: critical - 1 problem",
            "[tests] Backups: critical - 1 problem (report)",
        ]
        assert "Still wrong:\n* CRITICAL: There is no good backup" in texts(mails)[1]


class TestSignals:
    def test_code_that_listens_hears_of_each_once(self, backups: Path, settings: Any) -> None:
        heard = []

        def raised(sender: Any, id: str, finding: Any, **_: Any) -> None:  # noqa: A002
            heard.append(("raised", id, finding.level))
            raise RuntimeError("of a receiver")

        def cleared(sender: Any, id: str, finding: Any, **_: Any) -> None:  # noqa: A002
            heard.append(("cleared", id, finding.level))

        signals.finding_raised.connect(raised)
        signals.finding_cleared.connect(cleared)
        try:
            api.watch()
            api.watch()
            api.backup()
            api.watch()
            api.watch()
        finally:
            signals.finding_raised.disconnect(raised)
            signals.finding_cleared.disconnect(cleared)

        assert heard == [("raised", "no_backup", "critical"), ("cleared", "no_backup", "critical")]


class TestFailedLook:
    def test_look_that_fails_is_told_once_and_so_is_its_end(
        self, backups: Path, settings: Any, mails: MailServer, workdir: Path
    ) -> None:
        alerts(settings)
        api.watch()
        passphrase = workdir / "passphrase"
        passphrase.rename(workdir / "away")

        for _ in range(2):
            with pytest.raises(BackupError):
                api.watch()
        (workdir / "away").rename(passphrase)
        api.watch()

        assert len(mails.mails) == 3
        assert "CRITICAL: How the backups are cannot be told: " in texts(mails)[1]
        ended = texts(mails)[2].partition("Ended:")[2].partition("Still wrong:")
        assert "cannot be told" in ended[0]
        assert "There is no good backup" in ended[2]

    def test_timeout_without_meaning_is_nobodys_alert(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        alerts(settings)

        with pytest.raises(UsageError):
            api.watch(timeout=0)

        assert mails.mails == []


class TestCommand:
    def test_alert_prints_what_was_sent_where_and_keeps_the_exit_status(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        alerts(settings)

        status, printed = run("--alert")
        again, printed_again = run("--alert")

        assert (status, again) == (2, 2)
        assert "CRITICAL" in printed
        assert "e-mail: sent (new: no_backup; ended: -)" in printed
        assert "e-mail: nothing new to tell" in printed_again
        assert len(mails.mails) == 1

    def test_failed_alert_is_printed_and_changes_no_exit_status(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        alerts(settings, digest="weekly")
        api.backup()
        mails.refuse = "550 no"

        status, printed = run("--alert")

        assert status == 0
        assert "e-mail: not sent: SMTPSenderRefused 550" in printed

    def test_json_has_the_status_and_what_was_sent(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        alerts(settings)

        status, printed = run("--alert", "--json")

        document = json.loads(printed)
        assert status == 2
        assert document["level"] == "critical"
        assert document["alerts"] == [
            {
                "channel": "e-mail",
                "event": "raised",
                "sent": True,
                "raised": ["no_backup"],
                "cleared": [],
                "error": None,
            }
        ]

    def test_without_alert_nobody_is_told(
        self, backups: Path, settings: Any, mails: MailServer
    ) -> None:
        alerts(settings)

        assert run()[0] == 2
        assert mails.mails == []

    def test_nobody_to_tell_is_said(self, backups: Path, settings: Any) -> None:
        settings.ADMINS = []
        alerts(settings)

        assert "Nobody is told" in run("--alert")[1]
        assert run("--test-alert")[0] == 1

    def test_test_alert_reaches_each_channel_and_leaves_no_record(
        self, backups: Path, settings: Any, mails: MailServer, hooks: HTTPSServer
    ) -> None:
        alerts(settings, webhooks=[hooks.url()])

        status, printed = run("--test-alert")

        assert status == 0
        assert printed.splitlines() == ["e-mail: sent (test)", "webhook 127.0.0.1: sent (test)"]
        assert subjects(mails) == ["[tests] Backups: test message"]
        assert documents(hooks)[0]["event"] == "test"
        assert not (backups.with_name("state") / "alerts").exists()

    def test_test_alert_that_fails_anywhere_ends_with_1(
        self, backups: Path, settings: Any, mails: MailServer, hooks: HTTPSServer
    ) -> None:
        alerts(settings, webhooks=[hooks.url()])
        hooks.status = 403

        status, printed = run("--test-alert", "--json")

        assert status == 1
        assert [one["sent"] for one in json.loads(printed)] == [True, False]


class TestHeartbeat:
    def test_events_go_where_healthchecks_expects_them(
        self, backups: Path, settings: Any, hooks: HTTPSServer
    ) -> None:
        alerts(settings, heartbeat_url=hooks.url("/ping/uuid?create=1"))

        for event in ("start", "success", "fail"):
            delivery = api.heartbeat(event, f"{event}: á")
            assert delivery is not None and not delivery.failed

        assert [(request.path, request.body.decode()) for request in hooks.requests] == [
            ("/ping/uuid/start?create=1", "start: á"),
            ("/ping/uuid?create=1", "success: á"),
            ("/ping/uuid/fail?create=1", "fail: á"),
        ]

    def test_scheduled_backup_tells_of_its_start_and_its_end(
        self, backups: Path, settings: Any, hooks: HTTPSServer
    ) -> None:
        alerts(settings, heartbeat_url=hooks.url("/uuid"))
        slots = [datetime(2026, 7, day, tzinfo=UTC) for day in (1, 2)]

        good, again = (api.run_job(job="daily", slot=slots[0]) for _time in range(2))
        backups.with_name("passphrase").unlink()
        bad = api.run_job(job="daily", slot=slots[1])

        assert [good.ending, again.ending, bad.ending] == ["done", "already_done", "failed"]
        assert [request.path for request in hooks.requests] == [
            "/uuid/start",
            "/uuid",
            "/uuid/start",
            "/uuid/fail",
        ]
        assert "complete" in hooks.requests[1].body.decode()
        assert "passphrase" in hooks.requests[3].body.decode()

    def test_what_a_foreign_error_says_stays_here(
        self, backups: Path, settings: Any, hooks: HTTPSServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alerts(settings, heartbeat_url=hooks.url("/uuid"))

        def broken(**_options: Any) -> Any:
            raise RuntimeError(f"https://user:{TOKEN}@inside.example.org")

        monkeypatch.setattr("mipyme_backup.api.scheduling.backup", broken)

        api.run_job(job="daily", slot=datetime(2026, 7, 1, tzinfo=UTC))

        assert hooks.requests[-1].body.decode() == "daily: RuntimeError"

    def test_text_is_cut(self, backups: Path, settings: Any, hooks: HTTPSServer) -> None:
        alerts(settings, heartbeat_url=hooks.url())

        api.heartbeat("fail", "x" * 10**6)

        assert len(hooks.requests[0].body) == 10_000

    def test_ping_that_fails_is_a_warning_without_the_url(
        self, backups: Path, settings: Any, hooks: HTTPSServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        alerts(settings, heartbeat_url=hooks.url(f"/{TOKEN}"))
        hooks.status = 404

        delivery = api.heartbeat("success")

        assert delivery is not None
        assert delivery.error == "127.0.0.1 answers 404."
        assert "heartbeat has not arrived" in caplog.text
        assert TOKEN not in caplog.text + repr(delivery)

    def test_inside_is_refused(self, backups: Path, settings: Any) -> None:
        alerts(settings, heartbeat_url="https://localhost/ping")

        delivery = api.heartbeat("start")

        assert delivery is not None
        assert "not of the public internet" in delivery.error

    def test_without_a_url_there_is_none(self, backups: Path, settings: Any) -> None:
        assert api.heartbeat("start") is None

    def test_unknown_event_is_told(self, backups: Path, settings: Any) -> None:
        with pytest.raises(UsageError, match="end"):
            api.heartbeat("end")  # type: ignore[arg-type]
