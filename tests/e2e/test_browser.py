"""The admin's pages in a real browser: for everybody, in both themes, on a phone, strictly held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client, override_settings
from django.urls import reverse
from playwright.sync_api import Browser, Page
from pytest_django.live_server_helper import LiveServer

from mipyme_backup import api
from mipyme_backup.models import Backup, Copy, Drill, Look, Restore, Task
from tests import past, settings
from tests.e2e.browsing import DESKTOP, PHONE, check, keep, visits
from tests.integration.conftest import LOCAL

HEALTH = "/admin/mipyme_backup/backuphealth/"
PAGES = ("health", "backup", "copy", "restore", "drill", "task", "checklistentry")


@pytest.fixture(scope="module")
def shop(django_db_setup: None, django_db_blocker: Any) -> Iterator[LiveServer]:
    """A site with three months of backups, a copy that failed, and a destination that is away."""
    place = settings.WORK_DIR / "browser"
    backup = {
        "PROJECT": past.PROJECT,
        "DESTINATIONS": {
            "local": {"BACKEND": LOCAL, "OPTIONS": {"location": place / "backups"}},
            "offsite": {"BACKEND": LOCAL, "OPTIONS": {"location": Path("/dev/null/offsite")}},
        },
        "CONTACTS": [
            {"role": "Administrator", "name": "Ana", "contact": "+54 11 5550 1234"},
            {"role": "Hosting", "availability": "24/7"},
        ],
    }
    middleware = ["tests.e2e.strict_policy.StrictPolicy", *settings.MIDDLEWARE]
    with (
        django_db_blocker.unblock(),
        override_settings(MIDDLEWARE=middleware, MIPYME_BACKUP=backup, ALLOWED_HOSTS=["127.0.0.1"]),
    ):
        if not connection.introspection.table_names():
            call_command("migrate", verbosity=0)
        past.past(past.now(), notes="The order came in while the backup ran.")
        past.tasks(past.now())
        User.objects.create_superuser("ana")
        server = LiveServer("127.0.0.1:0")
        yield server
        server.stop()
        call_command("flush", interactive=False, verbosity=0)


@pytest.fixture
def open_page(shop: LiveServer, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Call it for a page of somebody who is logged in; whatever the console tells is an error."""
    with visits(browser, shop.url) as visit:

        def opened(*, dark: bool = False, size: dict[str, int] = DESKTOP) -> Page:
            client = Client()
            client.force_login(User.objects.get(username="ana"))
            cookie = client.cookies["sessionid"].value
            page = visit(dark=dark, size=size)
            page.context.add_cookies([{"name": "sessionid", "value": cookie, "url": shop.url}])
            return page

        yield opened


@pytest.fixture
def fine() -> None:
    """The last look found nothing wrong."""
    newest = Backup.objects.filter(status="complete", kind="daily").order_by("-started_at").first()
    offsite = {"remote": True, "place": "s3://shop-backups", "free_bytes": None}
    past.looked(past.now(), newest=newest, local={}, offsite={**offsite, "total_bytes": None})


@pytest.fixture
def alarming() -> None:
    """A real look: none of what the catalog knows is there, and a destination is away."""
    api.status(timeout=60)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    ("dark", "size"), [(False, DESKTOP), (True, PHONE)], ids=["light", "dark on a phone"]
)
def test_page_is_for_everybody(
    open_page: Callable[..., Page], fine: None, name: str, dark: bool, size: dict[str, int]
) -> None:
    page = open_page(dark=dark, size=size)

    page.goto(_address(name))

    check(page, f"{name}-{'dark' if dark else 'light'}", size)


@pytest.mark.parametrize("model", [Backup, Copy, Restore, Drill, Task])
@pytest.mark.parametrize(
    ("dark", "size"), [(True, DESKTOP), (False, PHONE)], ids=["dark", "light on a phone"]
)
def test_page_of_one_is_for_everybody(
    open_page: Callable[..., Page], fine: None, model: Any, dark: bool, size: dict[str, int]
) -> None:
    page, name = open_page(dark=dark, size=size), model._meta.model_name
    first = model.objects.order_by("-pk").filter(**{"passed": False} if model is Drill else {})

    page.goto(reverse(f"admin:mipyme_backup_{name}_change", args=[first.first().pk]))

    check(page, f"{name}-one-{'dark' if dark else 'light'}", size)


@pytest.mark.parametrize("state", ["queued", "running", "failed", "abandoned", "complete"])
def test_task_in_each_state_is_for_everybody(
    open_page: Callable[..., Page], fine: None, state: str
) -> None:
    task = Task.objects.filter(status=state).latest("pk")
    page = open_page(dark=state in ("running", "failed"))

    page.goto(reverse("admin:mipyme_backup_task_change", args=[task.task_id]))

    assert page.locator(".backup-task .backup-mark").first.inner_text().endswith(state)
    check(page, f"task-{state}", DESKTOP)


def test_verdict_that_asks_to_look(open_page: Callable[..., Page], fine: None) -> None:
    finding = past.finding("drill_overdue", "warning", "The drill is overdue.", "Rehearse one.")
    newest = Backup.objects.filter(status="complete", kind="daily").order_by("-started_at").first()
    past.looked(past.now(), [finding], newest=newest, local={})
    page = open_page()

    page.goto(HEALTH)

    assert page.get_by_role("heading", name="Look at it").is_visible()
    assert page.get_by_text("Rehearse one.").is_visible()
    check(page, "doubtful", DESKTOP)


def test_verdict_that_all_is_well(open_page: Callable[..., Page], fine: None) -> None:
    page = open_page()

    page.goto(HEALTH)

    assert page.get_by_role("heading", name="Fine").is_visible()


def test_filters_and_search(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.goto(_address("backup"))
    rows = page.locator("#result_list tbody tr")

    page.get_by_role("link", name="failed", exact=True).click()
    failed = Backup.objects.filter(status="failed").count()
    page.wait_for_url("**status__exact=failed*")
    assert rows.count() == failed > 0
    page.get_by_role("link", name="monthly", exact=True).click()
    page.wait_for_url("**kind__exact=monthly*")
    assert page.get_by_text("0 backups").is_visible()
    page.goto(_address("backup"))
    page.locator("#searchbar").fill("pre_deploy")
    with page.expect_navigation():
        page.get_by_role("button", name="Search").click()
    assert rows.count() == Backup.objects.filter(kind="pre_deploy").count()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_alarm_is_for_everybody(open_page: Callable[..., Page], alarming: None, dark: bool) -> None:
    page = open_page(dark=dark)

    page.goto(HEALTH)

    assert page.get_by_role("heading", name="Act now").is_visible()
    check(page, f"alarm-{'dark' if dark else 'light'}", DESKTOP)


def test_nobody_has_looked(open_page: Callable[..., Page]) -> None:
    Look.objects.all().delete()
    page = open_page()

    page.goto(HEALTH)

    assert page.get_by_text("Nobody has looked yet.").is_visible()
    check(page, "never-looked", DESKTOP)


def test_checklist_by_keyboard_alone(open_page: Callable[..., Page], fine: None) -> None:
    page = open_page()
    page.goto(HEALTH)
    line = "SSL certificates available"

    for key in ("Enter", "Space"):
        page.get_by_role("button", name=line).focus()
        with page.expect_navigation():
            page.keyboard.press(key)
        pressed = page.get_by_role("button", name=line).get_attribute("aria-pressed")
        assert pressed == ("true" if key == "Enter" else "false")

    with page.expect_navigation():
        page.get_by_role("button", name=line).click()
    item = page.get_by_role("listitem").filter(has_text=line)
    assert "ticked off by ana" in item.inner_text()
    check(page, "checklist", DESKTOP)
    with page.expect_navigation():
        page.get_by_role("button", name="Begin a fresh checklist").press("Enter")
    assert page.get_by_text("0 of 7").is_visible()


def test_skip_link_leads_to_what_a_keyboard_can_scroll(
    open_page: Callable[..., Page], fine: None
) -> None:
    """From the first key on, each part that scrolls can be reached."""
    page = open_page(size=PHONE)
    page.goto(HEALTH)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    reached = set()
    for _press in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('aria-labelledby')"))

    assert {"backup-coming", "backup-copies", "backup-places"} <= reached


@pytest.mark.parametrize("name", PAGES)
def test_in_spanish(open_page: Callable[..., Page], fine: None, name: str) -> None:
    with override_settings(LANGUAGE_CODE="es"):
        page = open_page()

        answer = page.goto(_address(name))

    assert answer is not None and answer.status == 200
    assert page.locator("html").get_attribute("lang") == "es"
    keep(page, f"{name}-es")


def _address(name: str) -> str:
    return f"/admin/mipyme_backup/{'backuphealth' if name == 'health' else name}/"
