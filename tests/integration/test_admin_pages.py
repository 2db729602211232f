"""The lists and pages of the admin: who sees them, what is found there, and that nobody writes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from mipyme_backup.admin import marks
from mipyme_backup.models import Backup, ChecklistEntry, Copy, Drill, Restore
from tests import past
from tests.integration.test_admin_health import HOSTILE

pytestmark = pytest.mark.django_db

MODELS: tuple[Any, ...] = (Backup, Copy, Restore, Drill, ChecklistEntry)
NAMES = [model._meta.model_name for model in MODELS]


@pytest.fixture(autouse=True)
def _past() -> None:
    past.past(past.now(), days=40, notes="The order came in late.")
    ChecklistEntry.objects.create(
        project=past.PROJECT, action="ticked", line="Call Ana", at=past.now(), by="bea"
    )


@pytest.fixture
def root() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


class TestWho:
    @pytest.mark.parametrize("model", MODELS, ids=NAMES)
    def test_anonymous_is_asked_to_log_in(self, model: Any) -> None:
        for url in (_list(model), _page(model)):
            assert Client().get(url)["Location"].startswith("/admin/login/")

    @pytest.mark.parametrize("model", MODELS, ids=NAMES)
    def test_staff_without_the_permission(self, model: Any) -> None:
        client = _staff("view_backuphealth")

        for url in (_list(model), _page(model)):
            assert client.get(url).status_code == 403

    @pytest.mark.parametrize("model", MODELS, ids=NAMES)
    def test_viewer_sees_that_and_no_other(self, model: Any) -> None:
        client = _staff(f"view_{model._meta.model_name}")

        for other in MODELS:
            status = 200 if other is model else 403
            for url in (_list(other), _page(other)):
                assert client.get(url).status_code == status

    @pytest.mark.parametrize("model", MODELS, ids=NAMES)
    @pytest.mark.parametrize("action", ["add", "delete"])
    def test_nobody_adds_or_deletes(self, root: Client, model: Any, action: str) -> None:
        name = f"admin:mipyme_backup_{model._meta.model_name}_{action}"
        arguments = [] if action == "add" else [model.objects.first().pk]
        before = model.objects.count()

        for method in (root.get, root.post):
            assert method(reverse(name, args=arguments), {"post": "yes"}).status_code == 403

        assert model.objects.count() == before
        page = _text(root.get(_list(model)))
        assert f"/mipyme_backup/{model._meta.model_name}/add/" not in page

    @pytest.mark.parametrize("model", MODELS, ids=NAMES)
    def test_nobody_changes(self, root: Client, model: Any) -> None:
        before = [*model.objects.values()]
        given = {"name": "x", "status": "failed", "destination": "x", "line": "x", "passed": "x"}

        answer = root.post(_page(model), given)

        assert answer.status_code == (302 if model is Drill else 403)  # a drill's notes, to nothing
        for old, new in zip(before, model.objects.values(), strict=True):
            assert {**new, "notes": ""} == {**old, "notes": ""}

    @pytest.mark.parametrize("model", MODELS, ids=NAMES)
    def test_list_cannot_be_edited_by_a_post(self, root: Client, model: Any) -> None:
        before = [*model.objects.values()]

        root.post(
            _list(model),
            {"action": "delete_selected", "_selected_action": [row["id"] for row in before]},
        )

        assert [*model.objects.values()] == before

    @pytest.mark.parametrize("model", MODELS, ids=NAMES)
    def test_reading_changes_nothing(self, root: Client, model: Any) -> None:
        before = [[*one.objects.values()] for one in MODELS]

        for url in (_list(model), f"{_list(model)}?q=x&all=", _page(model)):
            assert root.get(url).status_code in {200, 302}

        assert [[*one.objects.values()] for one in MODELS] == before


class TestLists:
    @pytest.mark.parametrize(
        ("model", "query", "expected"),
        [
            (Backup, "q=pre_deploy", 1),
            (Backup, "q=disk+is+full", 1),
            (Backup, "status__exact=failed", 1),
            (Backup, "kind__exact=monthly", 1),
            (Backup, "copies__destination=offsite&status__exact=partial", 4),
            (Backup, "pinned__exact=1", 0),
            (Copy, "status__exact=failed", 4),
            (Copy, "destination=offsite&status__exact=complete", 36),
            (Copy, "q=connection+was+cut", 4),
            (Drill, "passed__exact=0", 1),
            (Restore, "status__exact=failed", 0),
            (ChecklistEntry, "q=bea", 1),
        ],
    )
    def test_search_and_filters(self, root: Client, model: Any, query: str, expected: int) -> None:
        answer = root.get(f"{_list(model)}?{query}")

        assert answer.status_code == 200
        assert len(answer.context["cl"].result_list) == expected

    def test_by_date(self, root: Client) -> None:
        day = past.now() - timedelta(days=3, hours=5)
        url = f"{_list(Backup)}?started_at__year={day.year}&started_at__month={day.month}"

        assert root.get(url).context["cl"].result_count > 0
        assert root.get(f"{_list(Backup)}?started_at__year=2001").context["cl"].result_count == 0

    def test_copies_of_a_backup_in_one_cell(self, root: Client) -> None:
        page = _text(root.get(_list(Backup)))

        assert "2 of 2" in page and "1 of 2" in page

    @pytest.mark.parametrize("model", [Backup, Copy], ids=["backup", "copy"])
    def test_costs_no_query_for_each_row_and_no_manifest(self, root: Client, model: Any) -> None:
        with CaptureQueriesContext(connection) as queries:
            root.get(_list(model))

        assert len(queries) < 12
        assert not any('"manifest"' in query["sql"] for query in queries)


class TestBackup:
    def test_page_shows_all_that_is_known(self, root: Client) -> None:
        backup = Backup.objects.filter(status="complete").order_by("-started_at")[0]
        volume = backup.manifest["packs"][0]["volumes"][0]["sha256"]

        page = _text(root.get(_page(Backup, backup)))

        for text in (
            backup.sha256,
            volume,
            f"{backup.manifest['packs'][0]['path']}.00000",
            "database:default",
            "postgresql 16.4",
            "shop_table_07",
            "gpg-symmetric",
            "&quot;project&quot;: &quot;tests&quot;",
        ):
            assert text in page

    def test_rows_against_the_backup_before(self, root: Client) -> None:
        newest, before = Backup.objects.filter(status="complete").order_by("-started_at")[:2]
        newest.manifest["sources"][0]["facts"]["database.default.dump"]["tables"].update(
            {"shop_table_03": 1, "new_table": 12_345}
        )
        newest.save()

        page = _text(root.get(_page(Backup, newest)))

        assert f"Compared with {before.name}" in page
        assert "+12345" in page.replace(",", "")
        for text in ("new_table", "-3,"):
            assert text in page

    def test_first_one_has_none_before_it(self, root: Client) -> None:
        first = Backup.objects.exclude(status="failed").order_by("started_at")[0]

        page = _text(root.get(_page(Backup, first)))

        assert "There is no whole backup before this one." in page

    def test_failed_run_has_no_manifest(self, root: Client) -> None:
        failed = Backup.objects.filter(status="failed")[0]

        page = _text(root.get(_page(Backup, failed)))

        assert "The disk is full: /var/backups/shop" in page
        assert "There is no copy." in page
        assert "Stored files" not in page

    def test_sizes_are_written_as_in_the_language(self, root: Client, settings: Any) -> None:
        Backup.objects.update(raw_size=1_234_567_890)
        settings.LANGUAGE_CODE = "es"

        page = _text(root.get(_page(Backup, Backup.objects.filter(status="complete")[0])))

        assert "1,1\N{NO-BREAK SPACE}GB" in page

    def test_unknown_one_leads_back(self, root: Client) -> None:
        url = reverse("admin:mipyme_backup_backup_change", args=[10**9])

        assert root.get(url).status_code == 302

    def test_manifest_too_long_for_a_page_is_cut_and_says_so(self) -> None:
        text = marks.document({"x": "y" * 300_000})

        assert len(text) < 201_000
        assert "characters are in the manifest on the destinations" in text


class TestDrill:
    def test_report(self, root: Client) -> None:
        drill = Drill.objects.get(passed=False)

        page = _text(root.get(_page(Drill, drill)))

        for text in (
            "Rows and hashes as in the manifest",
            "shop_order: 4120 rows, 4121 in the manifest",
            "Login works",
            "The order came in late.",
        ):
            assert text in page

    def test_report_in_spanish(self, root: Client, settings: Any) -> None:
        settings.LANGUAGE_CODE = "es"

        page = _text(root.get(_page(Drill, Drill.objects.get(passed=False))))

        assert "Filas y hashes como en el manifiesto" in page
        assert "Login funciona" in page

    def test_time_against_the_rto(self, root: Client, settings: Any) -> None:
        drill = Drill.objects.get(passed=False)
        assert "within 1 h" in _text(root.get(_page(Drill, drill)))

        settings.MIPYME_BACKUP = {"RTO": timedelta(seconds=40)}

        assert "longer than 40.0 s" in _text(root.get(_page(Drill, drill)))

    def test_leads_to_its_backup(self, root: Client) -> None:
        backup = Backup.objects.filter(status="complete")[0]
        drill = Drill.objects.get(passed=False)
        Drill.objects.update(backup_id=backup.backup_id)

        assert f'href="{_page(Backup, backup)}"' in _text(root.get(_page(Drill, drill)))

        backup.delete()
        page = _text(root.get(_page(Drill, drill)))
        assert drill.backup_name in page and "/mipyme_backup/backup/1" not in page

    def test_step_that_was_not_taken(self, root: Client) -> None:
        drill = Drill.objects.get(passed=False)
        drill.steps = drill.steps[:1]
        drill.save()

        assert "not tried" in _text(root.get(_page(Drill, drill)))

    def test_viewer_reads_the_notes(self) -> None:
        client, drill = _staff("view_drill"), Drill.objects.get(passed=False)

        page = _text(client.get(_page(Drill, drill)))

        assert "The order came in late." in page and "<textarea" not in page
        assert client.post(_page(Drill, drill), {"notes": "x"}).status_code == 403
        assert Drill.objects.get(passed=False).notes == "The order came in late."

    def test_who_may_change_it_writes_the_notes_and_nothing_else(self) -> None:
        client, drill = _staff("view_drill", "change_drill"), Drill.objects.get(passed=False)

        client.post(_page(Drill, drill), {"notes": "Mended.", "passed": "on", "seconds": "1"})

        drill.refresh_from_db()
        assert (drill.notes, drill.passed) == ("Mended.", False)
        assert drill.seconds > 40

    def test_forged_post(self) -> None:
        User.objects.create_superuser("root")
        client, drill = Client(enforce_csrf_checks=True), Drill.objects.get(passed=False)
        client.force_login(User.objects.get())

        assert client.post(_page(Drill, drill), {"notes": "x"}).status_code == 403
        assert Drill.objects.get(passed=False).notes == "The order came in late."


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_hostile_names_appear_as_text(root: Client, model: Any) -> None:
    Backup.objects.filter(status="complete").update(name=HOSTILE, label=HOSTILE)
    Backup.objects.update(error=HOSTILE, warnings=[HOSTILE], sources=[HOSTILE])
    for backup in Backup.objects.filter(status="complete"):
        backup.manifest["sources"][0]["name"] = HOSTILE
        facts = backup.manifest["sources"][0]["facts"]["database.default.dump"]
        facts["tables"] = {HOSTILE: backup.pk}
        facts["left_out"] = {HOSTILE: HOSTILE}
        backup.manifest["packs"][0]["path"] = HOSTILE
        backup.manifest["host"] = HOSTILE
        backup.save()
    Copy.objects.filter(destination="local").update(destination=HOSTILE, error=HOSTILE)
    Restore.objects.update(backup_name=HOSTILE, error=HOSTILE, sources=[HOSTILE])
    steps = [{"name": HOSTILE, "ok": False, "seconds": 1, "problems": [HOSTILE]}]
    Drill.objects.update(backup_name=HOSTILE, notes=HOSTILE, steps=steps, destination=HOSTILE)
    ChecklistEntry.objects.update(line=HOSTILE, by=HOSTILE)

    for url in (_list(model), _page(model)):
        page = _text(root.get(url))
        assert "&lt;script&gt;alert(1)" in page
        assert "<script>alert" not in page and "<img src=x" not in page


def _list(model: Any) -> str:
    return reverse(f"admin:mipyme_backup_{model._meta.model_name}_changelist")


def _page(model: Any, row: Any = None) -> str:
    row = row or model.objects.filter(**{"status": "complete"} if model is Backup else {}).first()
    return reverse(f"admin:mipyme_backup_{model._meta.model_name}_change", args=[row.pk])


def _staff(*permissions: str) -> Client:
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=permissions, content_type__app_label="mipyme_backup")
    )
    assert user.user_permissions.count() == len(permissions)
    client = Client()
    client.force_login(user)
    return client


def _text(answer: Any) -> str:
    return str(answer.content.decode())
