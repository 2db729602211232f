"""A catalog each of whose texts was written by somebody who means harm to whoever reads it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.db import models

FLAG = "hostile"
"""The attribute of an element, and the name in a window, that no page may ever have."""

MARKUP = (
    f"<script>window.{FLAG}=1</script>",
    f'<img src="http://evil.invalid/x" onerror="window.{FLAG}=1" data-{FLAG}>',
    f"\"'><svg onload=window.{FLAG}=1 data-{FLAG}>",
    f'x" autofocus onfocus="window.{FLAG}=1" data-{FLAG}="',
    f"x' onmouseover='window.{FLAG}=1' data-{FLAG}='",
    f"javascript:window.{FLAG}=1",
    f"</script></style></title></textarea><b data-{FLAG}>",
    f"<iframe srcdoc='<b data-{FLAG}>'></iframe><!--",
    f"<a href=javascript:alert(1) data-{FLAG}>x</a>",
)
ANYWHERE = f"\"'><img src=//evil.invalid/x onerror=window.{FLAG}=1 data-{FLAG}>"
"""Begins each text: an element, be it put between tags or into an attribute."""

TEMPLATE = ("{{ settings.SECRET_KEY }}{% debug %}", "%(reason)s %(x)d %s %n 100 %", "{0.__class__}")
TERMINAL = (
    "\x1b[2J\x1b]0;title\x07\x1b[31mred",
    "\x9b31m\r\b\x7f",
    "gpj\u202e.exe\u2066",
    "a\nCRITICAL forged line\n",
    "ends with a slash \\",
    "two \\\\",
    "three \\\\\\",
    "[/] [bold] [link=http://evil.invalid]x[/link]",
    "a\udcffb",
    "nul\x00nul",
)
ALL = (*MARKUP, *TEMPLATE, *TERMINAL)
LONG = 100_000


def spoil(*, keep: frozenset[str] = frozenset()) -> int:
    """Put a hostile text into each text of each row of the catalog; return how many were put.

    Left alone are what names a row, `keep` and the words that the catalog chooses itself. In
    documents, names of parts that begin with ``shop_`` are replaced, too: they are tables.
    """
    texts, count = _texts(), 0
    for model in apps.get_app_config("mipyme_backup").get_models():
        if model._meta.proxy:
            continue
        for number, row in enumerate(model._default_manager.all()):
            for field in model._meta.concrete_fields:
                if _is_left_alone(field, keep):
                    continue
                value = getattr(row, field.name)
                if isinstance(field, models.JSONField):
                    setattr(row, field.name, _spoilt(value, texts))
                elif field.unique or field.name in {"name", "destination"}:
                    setattr(row, field.name, f"{number}{next(texts)}"[: field.max_length or 255])
                else:
                    long = next(texts) * (LONG // 50 if number == 0 else 1)
                    setattr(row, field.name, long[: field.max_length or LONG])
                count += 1
            row.save()
    return count


def _is_left_alone(field: models.Field[Any, Any], keep: frozenset[str]) -> bool:
    a_text = isinstance(field, models.CharField | models.TextField | models.JSONField)
    return not a_text or bool(field.choices) or field.name in {*keep, "task_id", "under_way"}


def _spoilt(value: Any, texts: Iterator[str]) -> Any:
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, list):
        return [_spoilt(part, texts) for part in value]
    if isinstance(value, dict):
        return {
            f"{name}{next(texts)}" if name.startswith("shop_") else name: part
            if name in KEPT
            else _spoilt(part, texts)
            for name, part in value.items()
        }
    return value


KEPT = frozenset({"at", "started_at", "snapshot_at", "finished_at", "level", "status", "version"})
"""Parts of documents that are no free text."""


def _texts() -> Iterator[str]:
    return (f"{ANYWHERE}{text}" for text in itertools.cycle(ALL))
