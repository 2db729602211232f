"""USE_TZ = False: the catalog keeps moments, and the admin shows them as the clock on the wall."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.contrib.admin.templatetags.admin_list import date_hierarchy
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Max, Min
from django.db.models.functions import Coalesce
from django.test import Client
from django.urls import reverse

from mipyme_backup.catalog import Catalog
from mipyme_backup.models import Backup, ChecklistEntry, Copy, Drill, Restore, Task
from tests import past

pytestmark = pytest.mark.django_db

EAST, WEST = "Pacific/Chatham", "Pacific/Marquesas"
"""UTC+12:45 and UTC-9:30: much of each day has another date there, and no hour the same minute."""

AUTUMN = [datetime(2025, 10, 26, hour, 30, tzinfo=UTC) for hour in (0, 1)]
"""Both are 2:30 in Madrid."""

SPRING = datetime(2025, 3, 30, 1, 30, tzinfo=UTC)
MODELS: tuple[Any, ...] = (Backup, Copy, Restore, Drill, ChecklistEntry, Task)
UTC_DIGITS = re.compile(r"\b\d+:17\b(?!:\d\d\+00:00)")
"""Of `NOW`; a manifest, which is shown as it is, says that it is in UTC."""
NOW = datetime(2025, 6, 15, 3, 17, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _naive(settings: Any) -> None:
    settings.USE_TZ = False


def backup(at: datetime, number: int = 1, **more: Any) -> Backup:
    given = {"status": "complete", "kind": "daily", "project": past.PROJECT, **more}
    return Backup.objects.create(backup_id=f"{number:016x}", name=f"{at}", started_at=at, **given)


@pytest.mark.parametrize("moment", [*AUTUMN, SPRING, datetime(1, 1, 2, tzinfo=UTC)], ids=str)
def test_moment_comes_back_as_it_was(moment: datetime) -> None:
    backup(moment, slot=moment.astimezone(ZoneInfo("Asia/Tokyo")))

    row = Backup.objects.get()

    assert row.started_at == row.slot == moment
    assert row.finished_at is None
    assert row.started_at.tzinfo is not None
    row.save()
    row.refresh_from_db()
    assert row.started_at == row.slot == moment


def test_hour_that_comes_twice_is_in_order() -> None:
    for number, moment in enumerate(AUTUMN):
        backup(moment, number, slot=moment)

    assert [row.started_at for row in Backup.objects.order_by("started_at")] == AUTUMN
    assert Backup.objects.filter(started_at__gt=AUTUMN[0]).get().started_at == AUTUMN[1]
    assert Backup.objects.get(slot=AUTUMN[1]).started_at == AUTUMN[1]
    assert Backup.objects.aggregate(first=Min("slot"), last=Max("slot")) == {
        "first": AUTUMN[0],
        "last": AUTUMN[1],
    }
    either = Backup.objects.order_by("pk").values_list(Coalesce("slot", "started_at"), flat=True)
    assert [*either] == AUTUMN
    assert Catalog().slots(past.PROJECT, AUTUMN[1]) == ({"daily": AUTUMN[1]}, AUTUMN[0])


@pytest.mark.parametrize("before", [True, False])
def test_project_may_change_its_mind(before: bool, settings: Any) -> None:
    settings.USE_TZ = before
    for number, moment in enumerate(AUTUMN):
        backup(moment, number, slot=moment)

    settings.USE_TZ = not before
    settings.TIME_ZONE = EAST

    assert [row.started_at for row in Backup.objects.order_by("started_at")] == AUTUMN
    assert Backup.objects.get(slot=AUTUMN[1]).started_at == AUTUMN[1]


def test_table_holds_utc_as_with_time_zones() -> None:
    backup(AUTUMN[1])

    with connection.cursor() as cursor:
        cursor.execute("SELECT started_at FROM mipyme_backup_backup")
        assert str(cursor.fetchone()[0]) == "2025-10-26 01:30:00"


def test_what_has_no_zone_is_local(settings: Any) -> None:
    backup(datetime(2025, 7, 1, 12))

    assert Backup.objects.get().started_at == datetime(2025, 7, 1, 10, tzinfo=UTC)
    assert Backup.objects.filter(started_at__gte="2025-07-01 12:00:00").exists()
    assert not Backup.objects.filter(started_at__gt="2025-07-01 12:00:00").exists()


def changes_of(client: Client, address: str) -> Any:
    return client.get(address).context["cl"]


@pytest.mark.parametrize("zone", [EAST, WEST])
class TestPages:
    @pytest.fixture(autouse=True)
    def _past(self, zone: str, settings: Any) -> None:
        settings.TIME_ZONE = zone
        past.past(NOW, days=40)
        past.tasks(NOW)
        ChecklistEntry.objects.create(
            project=past.PROJECT, action="ticked", line="Call Ana", at=NOW, by="bea"
        )

    @pytest.fixture
    def root(self) -> Client:
        client = Client()
        client.force_login(User.objects.create_superuser("root"))
        return client

    @pytest.mark.parametrize("model", MODELS)
    def test_local_times_alone(self, model: Any, zone: str, root: Client) -> None:
        name = model._meta.model_name
        row = model.objects.order_by("-pk").first()
        moments = {
            field.attname: NOW
            for field in model._meta.fields
            if field.get_internal_type() == "DateTimeField"
        }
        model.objects.filter(pk=row.pk).update(**moments)
        key = row.task_id if isinstance(row, Task) else row.pk
        shown = f"{NOW.astimezone(ZoneInfo(zone)):%-I:%M}"

        for address in (
            reverse(f"admin:mipyme_backup_{name}_changelist"),
            reverse(f"admin:mipyme_backup_{name}_change", args=[key]),
        ):
            text = root.get(address).content.decode()
            assert f"{shown} " in text, address
            assert not UTC_DIGITS.search(text), address

    @pytest.mark.parametrize("model", MODELS)
    def test_each_day_to_choose_has_its_rows(self, model: Any, root: Client) -> None:
        """From all years down to each day: every row is behind one of them."""
        start = reverse(f"admin:mipyme_backup_{model._meta.model_name}_changelist")
        counted, waiting = 0, [""]
        while waiting:
            query = waiting.pop()
            changes = changes_of(root, f"{start}{query}")
            shown: Any = date_hierarchy(changes)
            choices = [choice.get("link") for choice in shown["choices"]]
            if choices == [None]:
                assert changes.result_count, query
                counted += changes.result_count
            else:
                waiting += choices
        assert counted == model.objects.count()

    def test_filter_by_age(self, root: Client) -> None:
        start = reverse("admin:mipyme_backup_copy_changelist")
        Copy.objects.update(verified_at=datetime.now(UTC) - timedelta(minutes=1))
        changes = changes_of(root, start)
        (today,) = [
            choice["query_string"]
            for spec in changes.filter_specs
            if getattr(spec, "field_path", "") == "verified_at"
            for choice in spec.choices(changes)
            if str(choice["display"]) == "Past 7 days"
        ]

        assert changes_of(root, f"{start}{today}").result_count == Copy.objects.count()

    def test_health(self, zone: str) -> None:
        newest = Backup.objects.filter(status="complete").first()
        assert newest is not None and newest.finished_at is not None
        last = f"{newest.finished_at.astimezone(ZoneInfo(zone)):%m/%d/%Y}"

        with time_machine.travel(NOW, tick=False):
            client = Client()
            client.force_login(User.objects.create_superuser("root"))
            page = client.get(reverse("admin:mipyme_backup_backuphealth_changelist"))

        assert page.status_code == 200
        assert f"<span>{last}</span></div>" in page.content.decode()
