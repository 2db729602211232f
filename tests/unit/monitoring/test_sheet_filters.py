"""Values as Markdown and as a shell read them."""

from __future__ import annotations

import re
import subprocess
import unicodedata

import pytest
from markdown_it import MarkdownIt

from mipyme_backup.monitoring.sheet_filters import argument, cell, code
from mipyme_backup.printable import ESCAPED, printable
from tests import hostile

MARKDOWN = (
    "[x](javascript:alert(1))",
    "![x](http://evil.invalid/x)",
    "<http://evil.invalid>",
    "[x]: http://evil.invalid",
    "a | b",
    "a \\| b",
    "a \\\\| b",
    "one ` two `` three ``` four",
    "`",
    "``` x",
    "ends with \\",
    "~~~",
    "- [ ] x",
    "# x",
    "&lt;script&gt;",
    " ",
    "",
)
TEXTS = [text for text in (*hostile.ALL, *MARKDOWN) if "\udcff" not in text]
SHOWN = {"table", "thead", "tbody", "tr", "th", "td", "code", "em", "strong"}
"""The elements that a row may become: what no value can harm with."""


@pytest.mark.parametrize(
    ("value", "text"),
    [("a | b", r"a \| b"), ("two\nlines", "two lines"), (7, "7"), ("ana_b@x.org", "ana_b@x.org")],
)
def test_cell_stays_one_cell(value: object, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [("/srv", "`/srv`"), ("a`b", "`` a`b ``"), ("a``b", "``` a``b ```")]
)
def test_code_stays_code(value: object, text: str) -> None:
    assert code(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [("/srv/shop", "/srv/shop"), ("/my shop/$x", "'/my shop/$x'")]
)
def test_argument_stays_one_argument(value: object, text: str) -> None:
    assert argument(value) == text


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_text_is_shown_and_is_nothing_else(text: str) -> None:
    table = f"| a | b |\n| --- | --- |\n| {cell(text)} | {code(text)} |\n"

    html = MarkdownIt("commonmark").enable("table").render(table)

    assert html.count("<td>") == 2, html
    assert {tag.lower() for tag in re.findall(r"<(\w+)", html)} <= SHOWN, html
    assert not {unicodedata.category(one) for one in cell(text) + code(text)} & ESCAPED
    inside = re.search("<td><code>(.*)</code></td>", html)
    assert inside is not None or not text.strip()


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_argument_is_one_line_that_a_shell_reads_as_it_was(text: str) -> None:
    if "\x00" in text:
        assert argument(text).isprintable()  # no shell takes it, and no path holds it
        return

    read = subprocess.run(
        ["bash", "-c", f"printf %s {argument(text)}"], capture_output=True, check=True
    )

    assert read.stdout == text.encode()
    assert argument(text) == printable(argument(text)) and "\n" not in argument(text)
