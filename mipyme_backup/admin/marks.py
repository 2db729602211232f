"""How values look on the pages: a state as a sign and a word, sizes, times, hashes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from mipyme_backup.policy.finding import age_text

GOOD, DOUBTFUL, BAD, NEUTRAL = "good", "doubtful", "bad", "neutral"
SIGNS = {GOOD: "✓", DOUBTFUL: "!", BAD: "✕", NEUTRAL: "○"}
OF_LEVEL = {"ok": GOOD, "warning": DOUBTFUL, "critical": BAD}
OF_STATUS = {
    "complete": GOOD,
    "partial": DOUBTFUL,
    "missing": DOUBTFUL,
    "failed": BAD,
    "damaged": BAD,
    "abandoned": BAD,
}
LONGEST_TEXT = 200_000
NOTHING = "-"


def mark(tone: str, word: object) -> SafeString:
    """Return a word with a sign before it: colour alone tells nothing to some."""
    return format_html(
        '<span class="backup-mark backup-{}"><span aria-hidden="true">{}</span> {}</span>',
        tone,
        SIGNS[tone],
        word,
    )


def status(value: str, word: object) -> SafeString:
    """Return the status of a run or a copy, `word` being its translation."""
    return mark(OF_STATUS.get(value, NEUTRAL), word)


def yes_or_no(value: bool) -> str:
    """Return a word: Django's signs for true and false mean good and bad to the eye."""
    return _("yes") if value else _("no")


def size(count: int | None) -> str:
    """Return a size in bytes as the locale writes it."""
    return NOTHING if count is None else filesizeformat(count)


def count(value: int | None) -> str:
    """Return a number as the locale writes it."""
    return NOTHING if value is None else number_format(value, force_grouping=True)


def change(value: int) -> str:
    """Return a difference with its sign."""
    return f"{'+' if value > 0 else '-' if value < 0 else ''}{count(abs(value))}"


def moment(at: datetime | None) -> str:
    """Return a moment in the current time zone, as the locale writes it."""
    return date_format(timezone.localtime(at), "SHORT_DATETIME_FORMAT") if at else NOTHING


def duration(seconds: float | None) -> str:
    """Return a length of time for people."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{number_format(seconds, 1)} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return age_text(timedelta(seconds=seconds))


def fingerprint(sha256: str) -> SafeString | str:
    """Return a hash that can be broken into lines."""
    return format_html('<code class="backup-hash">{}</code>', sha256) if sha256 else NOTHING


def lines(texts: Iterable[str]) -> SafeString | str:
    """Return texts one below the other."""
    found = format_html_join("", "<li>{}</li>", ((text,) for text in texts))
    return format_html('<ul class="backup-lines">{}</ul>', found) if found else NOTHING


def document(value: Mapping[str, Any]) -> str:
    """Return JSON for people; one that is too long for a page is cut, and says so."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    if len(text) <= LONGEST_TEXT:
        return text
    rest = _("… cut here: %(count)s more characters are in the manifest on the destinations.")
    return f"{text[:LONGEST_TEXT]}\n{rest % {'count': count(len(text) - LONGEST_TEXT)}}"
