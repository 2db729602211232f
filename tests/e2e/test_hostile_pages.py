"""A catalog of hostile texts in a real browser: nothing of them is ever more than text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client, override_settings
from playwright.sync_api import Browser, Page
from pytest_django.live_server_helper import LiveServer

from mipyme_backup.models import Backup, ChecklistEntry, Task
from tests import hostile, past, settings
from tests.integration.test_hostile_texts import addresses

STRICT = "tests.e2e.strict_policy.StrictPolicy"


@pytest.fixture(scope="module")
def catalog(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with (
        django_db_blocker.unblock(),
        override_settings(
            MIPYME_BACKUP={"PROJECT": past.PROJECT, "ADMIN_RESTORE": True},
            ALLOWED_HOSTS=["127.0.0.1"],
        ),
    ):
        if not connection.introspection.table_names():
            call_command("migrate", verbosity=0)
        now = past.now()
        past.past(now, days=4)
        past.tasks(now)
        newest = Backup.objects.filter(status="complete").first()
        found = past.finding("drill_overdue", "warning", "x", "y")
        past.looked(now, [found], newest=newest, local={"error": "x"}, offsite={"reachable": False})
        ChecklistEntry.objects.create(
            project=past.PROJECT, action="ticked", line="Call Ana", at=now, by="bea"
        )
        hostile.spoil(keep=frozenset({"project"}))
        User.objects.create_superuser("ana")
        yield
        call_command("flush", interactive=False, verbosity=0)


@pytest.mark.parametrize("policy", [(), (STRICT,)], ids=["no policy", "strict policy"])
def test_no_text_becomes_more_than_text(
    catalog: None, browser: Browser, policy: tuple[str, ...]
) -> None:
    """Without a policy a script would run, with the strictest the browser would tell of it."""
    with override_settings(MIDDLEWARE=[*policy, *settings.MIDDLEWARE]):
        server = LiveServer("127.0.0.1:0")
        try:
            found = _visited(browser, server.url)
        finally:
            server.stop()

    assert found == []


def _visited(browser: Browser, url: str) -> list[str]:
    """Return what went wrong on any page: what ran, was asked for, or became an element."""
    client, found = Client(), list[str]()
    client.force_login(User.objects.get(username="ana"))
    context = browser.new_context(base_url=url)
    context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    cookie = client.cookies["sessionid"].value
    context.add_cookies([{"name": "sessionid", "value": cookie, "url": url}])
    page = context.new_page()
    page.on("console", lambda message: found.append(f"{page.url}: {message.text}"))
    page.on("pageerror", lambda error: found.append(f"{page.url}: {error}"))
    page.on("dialog", lambda dialog: found.append(f"{page.url}: {dialog.message}"))
    page.on("request", lambda request: found.extend(_foreign(request.url, url)))
    running = Task.objects.get(status="running")
    for address in addresses(rows=2):
        if "/progress/" not in address:
            answer = page.goto(address)
            if answer is None or answer.status != 200:
                found.append(f"{address}: {answer and answer.status}")
            found += _elements(page, address)
    with page.expect_response("**/progress/"):  # the script puts in what it is answered
        page.goto(f"/admin/mipyme_backup/task/{running.pk}/change/")
    page.wait_for_timeout(300)
    found += _elements(page, "progress")
    context.close()
    return found


def _foreign(asked: str, url: str) -> list[str]:
    return [] if asked.startswith((url, "data:", "about:")) else [f"asked for {asked}"]


def _elements(page: Page, address: str) -> list[str]:
    """Return what became an element or ran, and links that would run."""
    script = f"""() => [
        ...document.querySelectorAll('[data-{hostile.FLAG}], iframe, a[href^="javascript:" i]'),
    ].map(part => part.outerHTML.slice(0, 200)).concat(window.{hostile.FLAG} ? ['it ran'] : [])"""
    return [f"{address}: {one}" for one in page.evaluate(script)]
