"""Visits to pages in a real browser: for everybody, on each screen, with nothing told in secret.

``SCREENSHOTS=folder`` keeps a picture of each page.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 800}

PATIENCE = 120_000
"""Milliseconds for what comes about at once on a machine with nothing else to do."""
expect.set_options(timeout=PATIENCE)

TOLD: list[str] = []
"""What the browser's console was told."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a browser; where there is none, the test says so and is skipped."""
    if CHROMIUM is None:
        pytest.skip("the program chromium is missing: sudo apt-get install -y chromium")
    with pytest.MonkeyPatch.context() as patch:
        # Playwright runs an event loop in this thread, where Django would refuse to ask a database.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
            yield browser
            browser.close()


@contextmanager
def visits(browser: Browser, url: str) -> Iterator[Callable[..., Page]]:
    """Yield what opens a page of a new visitor; whatever the console tells is an error."""
    contexts = []
    TOLD.clear()

    def visit(*, dark: bool = False, size: dict[str, int] = DESKTOP) -> Page:
        context = browser.new_context(
            color_scheme="dark" if dark else "light",
            viewport={"width": size["width"], "height": size["height"]},
            base_url=url,
        )
        contexts.append(context)
        context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", _listen)
        page.on("pageerror", lambda error: TOLD.append(str(error)))
        return page

    yield visit
    for context in contexts:
        context.close()
    assert TOLD == []


def check(page: Page, name: str, size: dict[str, int] = DESKTOP) -> None:
    """Assert that nothing is wider than the screen, and that axe finds nothing, all opened."""
    keep(page, f"{name}-{size['width']}")
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    page.remove_listener("console", _listen)  # the policy stops what axe would like to load
    results = Axe().run(page, options={"resultTypes": ["violations"]})
    found = [
        (violation["id"], node["html"][:200], node["target"])
        for violation in results.response["violations"]
        for node in violation["nodes"]
    ]
    assert found == []


def keep(page: Page, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True, caret="initial")


def _listen(message: ConsoleMessage) -> None:
    TOLD.append(message.text)
