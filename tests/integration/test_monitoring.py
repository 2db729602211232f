"""What monitoring asks: who gets an answer, and what the last look says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import include, path
from prometheus_client import CollectorRegistry
from prometheus_client import parser as prometheus_parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from mipyme_backup import api
from mipyme_backup.metrics import BackupCollector
from mipyme_backup.models import Look
from mipyme_backup.monitoring import run_end
from tests.integration.conftest import LOCAL

urlpatterns = [path("backups/", include("mipyme_backup.urls"))]

TOKEN = "a token of some length"
PAGES = ("/backups/health", "/backups/metrics")


@pytest.fixture(autouse=True)
def _pages(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


@pytest.fixture
def token_file(backups: Path, settings: Any, workdir: Path) -> Path:
    file = workdir / "token"
    file.touch(mode=0o600)
    file.write_text(f"{TOKEN}\n")
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "MONITORING_TOKEN_FILE": file}
    return file


@pytest.fixture
def monitor(token_file: Path) -> Client:
    return Client(headers={"authorization": f"Bearer {TOKEN}"})


@pytest.fixture
def moved(backups: Path) -> Iterator[time_machine.Traveller]:
    with time_machine.travel(datetime(2026, 7, 15, 12, tzinfo=UTC), tick=False) as traveller:
        yield traveller


class TestWho:
    @pytest.mark.parametrize("page", PAGES)
    @pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic a:b", "ñ"])
    def test_nobody_without_the_token(self, token_file: Path, page: str, header: str) -> None:
        answer = Client().get(page, headers={"authorization": header})

        assert answer.status_code == 401
        assert answer["WWW-Authenticate"].startswith("Bearer")
        assert answer.json() == {
            "error": {"message": "Send the token: Authorization: Bearer TOKEN."}
        }

    @pytest.mark.parametrize("page", PAGES)
    def test_no_token_opens_where_the_settings_have_none(self, backups: Path, page: str) -> None:
        for header in ("Bearer ", "Bearer None", "Bearer x"):
            assert Client().get(page, headers={"authorization": header}).status_code == 401

    @pytest.mark.parametrize("page", PAGES)
    @pytest.mark.parametrize(
        ("allowed", "status"), [(True, {200, 503}), (False, {403})], ids=["may view", "may not"]
    )
    def test_user(self, backups: Path, page: str, allowed: bool, status: set[int]) -> None:
        user = User.objects.create_user("ana")
        if allowed:
            user.user_permissions.add(Permission.objects.get(codename="view_backup"))
        client = Client()
        client.force_login(user)

        assert client.get(page).status_code in status

    @pytest.mark.parametrize("page", PAGES)
    def test_project_without_users(self, monitor: Client, settings: Any, page: str) -> None:
        settings.MIDDLEWARE = []

        assert monitor.get(page).status_code in {200, 503}
        assert Client().get(page).status_code == 401

    @pytest.mark.parametrize("page", PAGES)
    def test_nothing_but_reading(self, monitor: Client, page: str) -> None:
        assert monitor.post(page).status_code == 405
        assert monitor.head(page).status_code in {200, 503}
        assert "no-store" in monitor.get(page)["Cache-Control"]

    def test_token_that_others_can_read_opens_nothing(
        self, monitor: Client, token_file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        token_file.chmod(0o644)

        answer = monitor.get(PAGES[0])

        assert answer.status_code == 401
        assert str(token_file) not in answer.content.decode()
        assert f"chmod 600 {token_file}" in caplog.text


class TestHealth:
    def test_nobody_has_looked(self, monitor: Client) -> None:
        answer = monitor.get("/backups/health")

        assert answer.status_code == 503
        assert (answer.json()["level"], _ids(answer)) == ("critical", ["never_looked"])

    def test_answers_as_the_look_did(self, monitor: Client) -> None:
        api.backup()
        seen = api.status().to_dict()

        answer = monitor.get("/backups/health")

        assert answer.status_code == 200
        assert answer.json() == seen

    def test_costs_one_query_and_asks_no_destination(
        self, monitor: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        api.watch()

        with CaptureQueriesContext(connection) as queries, monkeypatch.context() as patched:
            patched.setattr(os, "scandir", _forbidden)
            monitor.get("/backups/health")

        assert len(queries) == 1

    def test_text_that_holds_messages_comes_back(self, monitor: Client, settings: Any) -> None:
        places = settings.MIPYME_BACKUP["DESTINATIONS"]
        away = {"BACKEND": LOCAL, "OPTIONS": {"location": Path("/dev/null/no")}}
        settings.MIPYME_BACKUP = {
            **settings.MIPYME_BACKUP,
            "DESTINATIONS": {**places, "á <b>away</b>": away},
        }
        seen = api.status().to_dict()

        assert api.last_look().to_dict() == seen
        assert any(found["id"].startswith("destination_unreachable") for found in seen["findings"])

    def test_look_that_failed_is_no_good_news(
        self, monitor: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        api.backup()
        api.watch()
        monkeypatch.setattr("mipyme_backup.monitoring.status.gather", _forbidden)
        with pytest.raises(AssertionError):
            api.watch()

        answer = monitor.get("/backups/health")

        assert (answer.status_code, _ids(answer)) == (503, ["cannot_tell"])

    def test_new_look_takes_the_place_of_the_old(self, monitor: Client) -> None:
        for _time in range(3):
            api.status()

        assert Look.objects.count() == 1

    def test_look_outlives_a_restore(
        self, monitor: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        api.backup()
        seen = api.status()

        with monkeypatch.context() as patch:
            patch.setattr(run_end, "take", _forbidden)  # the check at the end would keep a new one
            api.restore(latest=True)

        assert api.last_look().to_dict() == seen.to_dict()

    def test_restore_ends_with_a_look_of_its_own(self, monitor: Client) -> None:
        made = api.backup()
        seen = api.status()

        api.restore(latest=True)

        after = api.last_look()
        assert after.at is not None and after.at > seen.at
        assert after.facts["last_restore"]["backup"] == made.manifest.name

    @pytest.mark.parametrize(
        ("minutes", "stale"), [(0, False), (119, False), (121, True), (60 * 24 * 9, True)]
    )
    def test_look_of_long_ago(
        self, monitor: Client, moved: time_machine.Traveller, minutes: int, stale: bool
    ) -> None:
        """The schedule looks each full hour: two of them, and the hour of grace, are too much."""
        api.backup()
        api.status()
        moved.shift(timedelta(minutes=minutes))

        answer = monitor.get("/backups/health")

        assert ("not_looked" in _ids(answer)) is stale
        assert answer.status_code == (503 if stale else 200)

    def test_look_that_a_clock_ahead_has_dated(
        self, monitor: Client, moved: time_machine.Traveller
    ) -> None:
        """It would be young for as long as the clock was ahead, whoever looks, or does not."""
        api.backup()
        api.status()
        moved.shift(-timedelta(minutes=4))
        assert monitor.get("/backups/health").status_code == 200

        moved.shift(-timedelta(days=30))
        answer = monitor.get("/backups/health")

        assert answer.status_code == 503
        assert "not_looked" in _ids(answer)

    def test_look_of_long_ago_where_nothing_is_scheduled(
        self, monitor: Client, settings: Any, moved: time_machine.Traveller
    ) -> None:
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "SCHEDULE": {"status": None}}
        api.status()
        moved.shift(timedelta(hours=25))
        assert "not_looked" not in _ids(monitor.get("/backups/health"))

        moved.shift(timedelta(seconds=1))
        assert "not_looked" in _ids(monitor.get("/backups/health"))

    def test_catalog_that_cannot_be_read(self, monitor: Client) -> None:
        api.status()
        with connection.schema_editor() as editor:
            editor.delete_model(Look)
        try:
            answer = monitor.get("/backups/health")
            api.status()  # a warning, and no more
        finally:
            with connection.schema_editor() as editor:
                editor.create_model(Look)

        assert (answer.status_code, _ids(answer)) == (503, ["cannot_tell"])
        assert "migrate" in answer.json()["findings"][0]["hint"]

    def test_document_of_another_version_is_no_look(self, monitor: Client) -> None:
        api.status()
        Look.objects.update(document={"version": 99})

        assert _ids(monitor.get("/backups/health")) == ["never_looked"]


class TestMetrics:
    def test_what_prometheus_reads(self, monitor: Client, moved: time_machine.Traveller) -> None:
        api.backup()
        api.watch()

        answer = monitor.get("/backups/metrics")
        found = _samples(answer.content.decode())

        assert answer["Content-Type"].startswith("text/plain")
        now = moved_now()
        assert found["level", ""] == 0
        assert found["look_timestamp_seconds", ""] == now
        assert found["newest_timestamp_seconds", ""] == now
        assert found["destination_newest_timestamp_seconds", "local"] == now
        assert found["last_run_complete", ""] == 1
        assert found["destination_reachable", "local"] == 1
        assert found["destination_backups", "local"] == 1
        assert found["destination_free_bytes", "local"] > 0
        assert found["missed_slots", ""] == 0
        assert not [name for name, _label in found if "drill" in name]

    def test_openmetrics_for_who_accepts_it(self, monitor: Client) -> None:
        api.backup()
        api.watch()
        accept = "application/openmetrics-text; version=1.0.0"

        answer = monitor.get("/backups/metrics", headers={"accept": accept})

        assert answer["Content-Type"].startswith("application/openmetrics-text")
        parse: Any = openmetrics_parser.text_string_to_metric_families
        names = {family.name for family in parse(answer.content.decode())}
        assert "mipyme_backup_level" in names

    def test_nobody_has_looked(self, monitor: Client) -> None:
        answer = monitor.get("/backups/metrics")

        assert answer.status_code == 200
        assert _samples(answer.content.decode()) == {
            ("level", ""): 2,
            ("finding", "never_looked"): 1,
        }

    def test_names_that_are_not_plain_break_no_line(self, monitor: Client, settings: Any) -> None:
        (place,) = settings.MIPYME_BACKUP["DESTINATIONS"].values()
        name = 'á "b\\ c'
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "DESTINATIONS": {name: place}}
        api.backup()
        api.status()

        found = _samples(monitor.get("/backups/metrics").content.decode())

        assert found["destination_reachable", name] == 1

    def test_collector_asks_no_database_when_it_is_registered(
        self, backups: Path, settings: Any
    ) -> None:
        with CaptureQueriesContext(connection) as queries:
            registry = CollectorRegistry()
            registry.register(BackupCollector())
        assert len(queries) == 0

        assert registry.get_sample_value("mipyme_backup_level") == 2

    def test_without_the_library(self, monitor: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "mipyme_backup.metrics", None)

        answer = monitor.get("/backups/metrics")

        assert answer.status_code == 501
        assert "mipyme-backup[metrics]" in answer.json()["error"]["message"]
        assert monitor.get("/backups/health").status_code == 503


def moved_now() -> float:
    return datetime.now(UTC).timestamp()


def _ids(answer: Any) -> list[str]:
    return [finding["id"] for finding in answer.json()["findings"]]


def _samples(text: str) -> dict[tuple[str, str], float]:
    parse: Any = prometheus_parser.text_string_to_metric_families
    return {
        (
            sample.name.removeprefix("mipyme_backup_"),
            sample.labels.get("destination", sample.labels.get("id", "")),
        ): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def _forbidden(*_arguments: Any, **_options: Any) -> Any:
    raise AssertionError("nobody asked for a look")
