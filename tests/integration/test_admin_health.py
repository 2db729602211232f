"""The page that shows how the backups are: who sees it, what it says, and what it costs."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path

from mipyme_backup import api
from mipyme_backup.admin.health import BackupHealthAdmin
from mipyme_backup.models import Backup, BackupHealth, ChecklistEntry, Copy, Look
from mipyme_backup.operations.drill_report import DISASTER
from tests import past
from tests.integration.conftest import LOCAL

pytestmark = pytest.mark.django_db

PAGE = "/admin/mipyme_backup/backuphealth/"
USERS = "/admin/auth/user/?all="
CHECKLIST = f"{PAGE}checklist/"
HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>{{ 7|add:7 }}%(x)s"""

own_site = admin.AdminSite(name="own")
own_site.register(BackupHealth, BackupHealthAdmin)
urlpatterns = [path("own/", own_site.urls)]


@pytest.fixture(autouse=True)
def _state(settings: Any, tmp_path: Any) -> None:
    settings.MIPYME_BACKUP = {
        "PROJECT": past.PROJECT,
        "DESTINATIONS": {"local": {"BACKEND": LOCAL, "OPTIONS": {"location": tmp_path / "b"}}},
    }


@pytest.fixture
def root() -> Client:
    return _logged_in(User.objects.create_superuser("root"))


@pytest.fixture
def viewer() -> Client:
    return _staff("view_backuphealth")


class TestWho:
    def test_anonymous_is_asked_to_log_in(self) -> None:
        for url in (PAGE, CHECKLIST):
            assert Client().get(url)["Location"].startswith("/admin/login/")

    def test_staff_without_the_permission(self) -> None:
        client = _staff("view_backup")

        assert client.get(PAGE).status_code == 403
        assert client.post(CHECKLIST, {"ticked": DISASTER[0]}).status_code == 403
        assert PAGE not in _text(client.get("/admin/"))

    def test_viewer_sees_it_and_changes_nothing(self, viewer: Client) -> None:
        page = viewer.get(PAGE)

        assert page.status_code == 200
        assert '<button type="submit" name=' not in _text(page)
        assert viewer.post(CHECKLIST, {"ticked": DISASTER[0]}).status_code == 403
        assert not ChecklistEntry.objects.exists()

    def test_leads_only_to_what_one_may_see(self, viewer: Client) -> None:
        past.past(past.now(), days=3)
        assert "/change/" not in _text(viewer.get(PAGE))

        User.objects.get().user_permissions.add(Permission.objects.get(codename="view_backup"))

        page = _text(viewer.get(PAGE))
        assert "/mipyme_backup/backup/" in page and "/mipyme_backup/drill/" not in page

    def test_who_may_change_it_ticks_off(self) -> None:
        client = _staff("view_backuphealth", "change_backuphealth")

        answer = client.post(CHECKLIST, {"ticked": DISASTER[0]})

        assert answer["Location"] == f"{PAGE}#checklist"
        assert "ticked off by staff" in _text(client.get(PAGE))

    @pytest.mark.parametrize("page", ["/admin/", "/admin/mipyme_backup/"])
    def test_index_leads_there(self, viewer: Client, page: str) -> None:
        found = _text(viewer.get(page))

        assert f'href="{PAGE}"' in found
        assert "mipyme_backup/backup/" not in found

    def test_own_site_of_a_project(self, settings: Any, root: Client) -> None:
        settings.ROOT_URLCONF = __name__
        past.past(past.now(), days=3)

        page = _text(root.get("/own/mipyme_backup/backuphealth/"))

        assert 'action="/own/mipyme_backup/backuphealth/checklist/"' in page
        assert 'href="/admin/' not in page


class TestMethods:
    def test_reading_changes_nothing(self, root: Client) -> None:
        past.past(past.now(), days=3)
        before = _rows()

        for url in (PAGE, f"{PAGE}?q=x"):
            assert root.get(url).status_code == root.head(url).status_code == 200
        assert root.get(f"{CHECKLIST}?ticked={DISASTER[0]}").status_code == 405

        assert _rows() == before

    def test_nothing_but_reading(self, root: Client) -> None:
        assert root.post(PAGE).status_code == 405

    def test_forged_post(self) -> None:
        User.objects.create_superuser("root")
        client = Client(enforce_csrf_checks=True)
        client.force_login(User.objects.get())

        assert client.post(CHECKLIST, {"ticked": DISASTER[0]}).status_code == 403
        assert not ChecklistEntry.objects.exists()

    def test_post_without_anything_to_do(self, root: Client) -> None:
        assert root.post(CHECKLIST).status_code == 302
        assert not ChecklistEntry.objects.exists()

    @pytest.mark.parametrize("line", ["no such line", "\x00", "x" * 10_000, HOSTILE])
    def test_line_that_is_none_is_told(self, root: Client, line: str) -> None:
        page = root.post(CHECKLIST, {"ticked": line}, follow=True)

        assert "The checklist has no line like this" in _text(page)
        assert not ChecklistEntry.objects.exists()

    def test_second_tick_is_told(self, root: Client) -> None:
        root.post(CHECKLIST, {"ticked": DISASTER[0]})

        page = root.post(CHECKLIST, {"ticked": DISASTER[0]}, follow=True)

        assert "Somebody has done that already." in _text(page)

    def test_fresh_checklist(self, root: Client) -> None:
        assert "Begin a fresh checklist" not in _text(root.get(PAGE))
        root.post(CHECKLIST, {"ticked": DISASTER[0]})
        assert "1 of 7" in _text(root.get(PAGE))

        root.post(CHECKLIST, {"began": "1"})

        page = _text(root.get(PAGE))
        assert "0 of 7" in page and "Begun by root" in page


class TestWhatItSays:
    def test_empty_catalog(self, root: Client) -> None:
        page = _text(root.get(PAGE))

        for text in (
            "Act now",
            "Nobody has looked yet",
            "The catalog knows of no backup. Take one: manage.py backup.",
            "There is no good backup that holds everything.",
            "No restore was rehearsed yet",
            "No backup was made in this time.",
            "No manifest is in the catalog.",
            "Nobody is named: fill in CONTACTS",
        ):
            assert text in page

    @pytest.mark.parametrize(
        ("level", "word"), [("ok", "Fine"), ("warning", "Look at it"), ("critical", "Act now")]
    )
    def test_verdict_in_words(self, root: Client, level: str, word: str) -> None:
        past.past(past.now(), days=3)
        found = [past.finding("x", level, "Something.", "Do this.")]
        past.looked(past.now(), found, newest=_newest(), local={})

        page = _text(root.get(PAGE))

        assert f'<h2 id="backup-verdict">{word}</h2>' in page
        assert "Something." in page and "Do this." in page

    def test_look_of_long_ago(self, root: Client) -> None:
        past.past(past.now(), days=3)
        past.looked(past.now() - timedelta(hours=9), newest=_newest(), local={})

        page = _text(root.get(PAGE))

        assert "Act now" in page
        assert "Nobody has looked at the backups for 9 h." in page

    def test_destination_that_is_away(self, root: Client) -> None:
        past.past(past.now(), days=3)
        away = {"reachable": False, "writable": None, "error": "No route to host", "backups": 0}
        past.looked(past.now(), newest=_newest(), local=away)

        page = _text(root.get(PAGE))

        assert "away" in page and "No route to host" in page

    def test_newest_backups_and_their_copies(self, root: Client) -> None:
        past.past(past.now(), days=12)
        past.looked(past.now(), newest=_newest(), local={})

        page = _text(root.get(PAGE))

        assert "The connection was cut." in page
        assert _newest().name in page
        assert f"/admin/mipyme_backup/backup/{_newest().pk}/change/" in page
        assert "no longer in the settings" in page  # the destination "offsite"

    def test_settings_that_are_wrong(self, root: Client, settings: Any) -> None:
        settings.MIPYME_BACKUP = {"NO_SUCH_KEY": 1}

        page = root.get(PAGE)

        assert page.status_code == 200
        assert "NO_SUCH_KEY" in _text(page) and "Act now" not in _text(page)

    def test_catalog_older_than_the_code(self, root: Client) -> None:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE mipyme_backup_checklistentry")

        page = _text(root.get(PAGE))
        told = _text(root.post(CHECKLIST, {"ticked": DISASTER[0]}, follow=True))

        for text in (page, told):
            assert "The catalog cannot be read" in text and "manage.py migrate" in text

    @pytest.mark.parametrize("language", ["es", "de", "ar"])
    def test_in_other_languages(self, root: Client, settings: Any, language: str) -> None:
        """Numbers as the locale writes them have no place in a drawing."""
        past.past(past.now(), days=40)
        past.looked(past.now(), newest=_newest(), local={})
        settings.LANGUAGE_CODE = language

        page = _text(root.get(PAGE))

        drawn = re.findall(r'(?:d|viewBox|x|y|width|height|transform)="([^"]*)"', page)
        assert len(drawn) > 50
        assert [text for text in drawn if "," in text or "\N{NO-BREAK SPACE}" in text] == []

    def test_checklist_in_spanish_is_the_same_one(self, root: Client, settings: Any) -> None:
        root.post(CHECKLIST, {"ticked": DISASTER[6]})
        settings.LANGUAGE_CODE = "es"

        page = _text(root.get(PAGE))

        assert "Equipo notificado y disponible" in page
        assert f'name="cleared" value="{DISASTER[6]}"' in page


class TestHostileNames:
    @pytest.fixture
    def page(self, root: Client, settings: Any) -> str:
        place = settings.MIPYME_BACKUP["DESTINATIONS"]["local"]
        settings.MIPYME_BACKUP = {
            **settings.MIPYME_BACKUP,
            "DESTINATIONS": {HOSTILE: place},
            "CONTACTS": [{"role": HOSTILE, "name": HOSTILE, "contact": HOSTILE}],
            "CHECKLIST": [HOSTILE],
        }
        past.past(past.now(), days=12, destinations=(HOSTILE, "offsite"), notes=HOSTILE)
        Backup.objects.update(name=HOSTILE, label=HOSTILE, error=HOSTILE)
        Copy.objects.update(error=HOSTILE)
        seen = {"place": HOSTILE, "error": HOSTILE, "reachable": False}
        found = past.finding("x", "warning", "%(name)s", "")
        found["message"]["params"] = {"name": HOSTILE}
        past.looked(past.now(), [found], newest=_newest(), **{HOSTILE: seen})
        User.objects.update(username=HOSTILE)
        api.mark_checklist(action="ticked", line=HOSTILE, by=HOSTILE)
        return _text(root.get(PAGE))

    def test_appear_as_text(self, page: str) -> None:
        assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 12
        assert "<script>alert" not in page
        assert "{{ 7|add:7 }}" in page

    def test_no_tag_or_attribute_comes_of_them(self, page: str) -> None:
        parser = _Tags()

        parser.feed(page)

        assert "img" not in parser.tags and "onerror" not in parser.attributes
        assert "style" not in parser.attributes and "onclick" not in parser.attributes
        assert parser.inline_scripts == []


class TestCost:
    @pytest.fixture
    def busy(self, root: Client) -> None:
        """Two thousand backups, whose manifests alone are more than 20 MB, and fifty findings."""
        past.past(past.now(), each_day=23)
        found = [past.finding(f"x:{n}", "warning", f"Text {n}", "Do this.") for n in range(50)]
        past.looked(past.now(), found, newest=_newest(), local={}, offsite={})
        assert Backup.objects.count() > 2000

    def test_two_thousand_backups_and_fifty_findings(self, root: Client, busy: None) -> None:
        """A few queries, one manifest, and less work than a page of Django's with as many rows."""
        page, queries = root.get(PAGE), _queries(root, PAGE)

        assert "Text 49" in _text(page)
        assert len(queries) < 15
        assert sum('"manifest"' in query.partition("WHERE")[0] for query in queries) == 1
        User.objects.bulk_create(User(username=f"user{n}", email=f"{n}@x.org") for n in range(190))
        took = [_work(root, address) for _time in range(5) for address in (PAGE, USERS)]
        assert min(took[::2]) < 2 * min(took[1::2])

    @pytest.mark.torture
    def test_seconds_of_its_work(self, root: Client, busy: None, record_property: Any) -> None:
        took = min(_work(root, PAGE) for _time in range(40))

        record_property("measured", f"the health page took {1000 * took:.0f} ms of processor time")


def _queries(client: Client, address: str) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        client.get(address)
    return [query["sql"] for query in queries]


def _work(client: Client, address: str) -> float:
    """Return the seconds that the processor worked for a page."""
    began = time.thread_time()
    assert client.get(address).status_code == 200
    return time.thread_time() - began


class _Tags(HTMLParser):
    """Collects the tags and attributes that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.inline_scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _value in attrs)
        if tag in {"script", "style"} and "src" not in dict(attrs):
            self.inline_scripts.append(tag)


def _staff(*permissions: str) -> Client:
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=permissions, content_type__app_label="mipyme_backup")
    )
    assert user.user_permissions.count() == len(permissions)
    return _logged_in(user)


def _logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def _newest() -> Backup:
    return Backup.objects.filter(status="complete", kind="daily").order_by("-started_at")[0]


def _text(answer: Any) -> str:
    return str(answer.content.decode())


def _rows() -> list[Any]:
    return [[*model.objects.values()] for model in (Backup, Copy, Look, ChecklistEntry)]
