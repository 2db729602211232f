"""Backing up and restoring from the admin: a browser, a web server, Redis, a worker, PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import services
from tests.e2e.browsing import DESKTOP, PHONE, TOLD, check, keep, visits
from tests.e2e.project import Project, postgresql_project

HEALTH = "/admin/mipyme_backup/backuphealth/"
PASSWORD = "a password of hers"
REASON = "The price list was deleted by mistake."
LARGE = 8 * 2**20
"""Bytes of media, in volumes of 256 KiB, each of which takes a while: there is something to see."""

SECONDS = 240_000
"""Milliseconds, as the browser counts, for what takes a while."""

MORE_SETTINGS = """
INSTALLED_APPS += [
    "django.contrib.admin", "django.contrib.messages", "django.contrib.staticfiles"
]
ALLOWED_HOSTS = ["127.0.0.1"]
STATIC_URL = "static/"
MIDDLEWARE = [
    "tests.e2e.strict_policy.StrictPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "offsite": {
        "BACKEND": "tests.e2e.slow_storage.SlowStorage",
        "OPTIONS": {"location": BASE_DIR / "backups"},
    },
}
MIPYME_BACKUP["ADMIN_RESTORE"] = True
MIPYME_BACKUP["VOLUME_SIZE"] = 2**18
MIPYME_BACKUP["DESTINATIONS"] = {
    "offsite": {
        "BACKEND": "mipyme_backup.destinations.StorageDestination",
        "OPTIONS": {"storage": "offsite"},
    },
}
CELERY_BROKER_URL = %(broker)r
"""

CELERY = """
from celery import Celery

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""

URLS = """
from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
"""


@pytest.fixture(scope="module")
def shop(
    postgresql_server: services.PostgreSQLServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """A project as in production, with its worker, one user, and some pictures."""
    with (
        services.redis() as broker,
        postgresql_project(tmp_path_factory.mktemp("shop"), postgresql_server) as project,
    ):
        project.more_settings = MORE_SETTINGS % {"broker": broker}
        project.write()
        config = project.root / "config"
        (config / "urls.py").write_text(URLS)
        (config / "celery.py").write_text(CELERY)
        (config / "__init__.py").write_text("from config.celery import app\n")
        project.manage("migrate", "--verbosity=0")
        project.manage(
            "createsuperuser",
            "--no-input",
            "--username=ana",
            "--email=ana@example.org",
            env={"DJANGO_SUPERUSER_PASSWORD": PASSWORD},
        )
        project.media.mkdir()
        (project.media / "picture").write_bytes(os.urandom(LARGE))
        with _running(project, _worker(project), "worker"):
            yield project


@pytest.fixture(scope="module")
def site(shop: Project) -> Iterator[str]:
    """The address of the project's web server."""
    port = _free_port()
    argv = shop.command("runserver", "--noreload", "--insecure", f"127.0.0.1:{port}")
    url = f"http://127.0.0.1:{port}"
    with _running(shop, argv, "web"):
        _wait_for(url)
        yield url


@pytest.fixture
def visit(site: str, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Call it for a page of somebody who has signed in."""
    with visits(browser, site) as visit:

        def signed_in(*, dark: bool = False, size: dict[str, int] = DESKTOP) -> Page:
            page: Page = visit(dark=dark, size=size)
            page.set_default_timeout(SECONDS)
            page.goto(HEALTH)
            _sign_in(page)
            return page

        yield signed_in


def test_backing_up_with_progress_to_the_end(visit: Callable[..., Page], shop: Project) -> None:
    page = visit()
    page.get_by_label("Label").fill("before the fair")
    check(page, "actions")
    with page.expect_navigation():
        page.get_by_role("button", name="Back up now").click()
    loaded: list[str] = []
    page.on("framenavigated", lambda frame: loaded.append(frame.url))

    bar = page.get_by_role("progressbar", name="Back up")
    expect(bar).to_be_visible(timeout=SECONDS)
    expect(page.locator(".backup-task")).to_contain_text("a second", timeout=SECONDS)
    keep(page, "backing-up")
    expect(page.locator(".backup-task .backup-good")).to_have_text("✓ complete", timeout=SECONDS)
    expect(page.get_by_role("status")).to_have_text("Back up: complete")
    assert loaded == []  # it was followed without loading the page again
    check(page, "backed-up")
    page.get_by_role("link", name="Backup", exact=True).click()
    expect(page.get_by_text("before the fair").first).to_be_visible()
    (row,) = shop.json("list_backups")
    assert (row["label"], row["status"]) == ("before the fair", "complete")


def test_verifying_is_shown_on_the_health_page(visit: Callable[..., Page], shop: Project) -> None:
    page = visit(dark=True, size=PHONE)
    with page.expect_navigation():
        page.get_by_role("button", name="Verify the newest backup").press("Enter")
    page.goto(HEALTH)

    expect(
        page.locator("#actions .backup-task .backup-good, #actions:not(:has(.backup-task))")
    ).to_be_visible()
    check(page, "under-way", PHONE)
    page.goto("/admin/mipyme_backup/task/?verb__exact=verify")
    page.locator("#result_list").get_by_role("link", name="Verify").first.click()
    expect(page.locator(".backup-task .backup-good")).to_have_text("✓ complete", timeout=SECONDS)


def test_server_that_is_away_for_a_moment(visit: Callable[..., Page]) -> None:
    page = visit()
    page.route("**/progress/", lambda route: route.abort())
    with page.expect_navigation():
        page.get_by_role("button", name="Back up now").click()

    expect(page.get_by_text("The server does not answer at the moment")).to_be_visible()
    page.unroute("**/progress/")
    expect(page.locator(".backup-task .backup-good")).to_have_text("✓ complete", timeout=SECONDS)
    expect(page.get_by_text("The server does not answer at the moment")).to_be_hidden()
    assert TOLD and all("ERR_FAILED" in line for line in TOLD)
    TOLD.clear()


def test_what_stays_keeps_focus(visit: Callable[..., Page], shop: Project) -> None:
    """Whoever reads or copies the command, is not thrown out each second."""
    page = visit()
    shop.execute(
        "INSERT INTO mipyme_backup_task (task_id, project, verb, status, backup_id, backup_name,"
        " options, asked_by, asked_at, reason, step, done_bytes, result, error, hint)"
        " VALUES ('waits', '', 'backup', 'queued', '', '', '{\"label\": \"a & \\\"b\\\"\"}', 'ana',"
        " now() - interval '1 minute', '', '', 0, '{}', '', '')"
    )
    try:
        page.goto("/admin/mipyme_backup/task/waits/change/")
        for _time in range(2):  # the page has taken in an answer when it asks for the next one
            with page.expect_response("**/progress/"):
                pass
        command = page.locator(".backup-command")
        command.focus()
        for _time in range(2):
            with page.expect_response("**/progress/"):
                pass
        page.wait_for_timeout(200)

        expect(command).to_be_focused()
    finally:
        shop.execute("DELETE FROM mipyme_backup_task WHERE task_id = 'waits'")


def test_restoring_with_each_refusal(visit: Callable[..., Page], shop: Project) -> None:
    page = visit()  # whose session is younger than the backup
    backup = shop.json("list_backups")[-1]
    shop.execute("UPDATE auth_user SET first_name = 'Lost'")
    (shop.media / "picture").unlink()

    page.goto("/admin/mipyme_backup/backup/")
    with page.expect_navigation():
        page.get_by_role("link", name=backup["name"]).click()
    check(page, "backup-with-actions")
    with page.expect_navigation():
        page.get_by_role("button", name="Plan a restore").click()
    page.get_by_role("link", name="Go on to the restore").click()
    expect(page.get_by_role("heading", name="Confirm")).to_be_visible()
    expect(page.get_by_text("The live data is saved first")).to_be_visible()
    check(page, "restore")

    for name, reason, password, refusal in (
        ("another", REASON, PASSWORD, "That is not the name of this backup"),
        (backup["name"], "oops", PASSWORD, "at least 10 characters"),
        (backup["name"], REASON, "guessed", "That is not your password."),
    ):
        _confirm(page, name, reason, password)
        expect(page.get_by_text(refusal)).to_be_visible()
    check(page, "restore-refused")
    assert shop.execute("SELECT first_name FROM auth_user") == [("Lost",)]

    _confirm(page, backup["name"], REASON, PASSWORD)
    address = page.url
    expect(page.get_by_text("You are signed out here, as after a restore.")).to_be_visible(
        timeout=SECONDS
    )
    check(page, "restored-signed-out")
    page.goto(address)
    _sign_in(page)

    expect(page.locator(".backup-task .backup-good")).to_have_text("✓ complete", timeout=SECONDS)
    check(page, "restored")
    expect(page.get_by_text(REASON)).to_be_visible()
    assert shop.execute("SELECT first_name FROM auth_user") == [("",)]
    assert (shop.media / "picture").exists()


def _confirm(page: Page, name: str, reason: str, password: str) -> None:
    page.get_by_label("Name of the backup, typed").fill(name)
    page.get_by_label("Reason").fill(reason)
    page.get_by_label("Your password").fill(password)
    with page.expect_navigation():
        page.get_by_role("button", name="Restore now").click()


def _sign_in(page: Page) -> None:
    page.get_by_label("Username").fill("ana")
    page.get_by_label("Password").fill(PASSWORD)
    with page.expect_navigation():
        page.get_by_role("button", name="Log in").click()


def _worker(project: Project) -> list[str]:
    return [sys.executable, "-m", "celery", "-A", "config", "worker", "-l", "INFO", "-c", "1"]


@contextlib.contextmanager
def _running(project: Project, argv: list[str], name: str) -> Iterator[None]:
    """Run a program of the project in a process group of its own; its log is a file."""
    environment = {
        **project.environment(),
        "C_FORCE_ROOT": "1",
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    with (project.root / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            argv,
            cwd=project.root,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"{url}/admin/login/", timeout=60).close()
            return
        assert time.monotonic() < deadline
        time.sleep(0.2)
