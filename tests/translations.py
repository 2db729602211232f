"""Keeps the Spanish texts: ``python -m tests.translations`` (make messages) updates and compiles.

Babel does the work, since GNU gettext is absent on many machines. Calls are found in the syntax
tree: neither gettext nor Babel finds one within an f-string on every Python. Django's own
``templatize`` makes something like Python of a template.
"""

from __future__ import annotations

import ast
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_python
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

PACKAGE = Path(__file__).parent.parent / "mipyme_backup"
SPANISH = PACKAGE / "locale" / "es" / "LC_MESSAGES" / "django.po"
COMPILED = SPANISH.with_suffix(".mo")

KEYWORDS = {
    "_": 1,
    "gettext": 1,
    "gettext_lazy": 1,
    "gettext_noop": 1,
    "marked": 1,
    "ngettext": 2,
    "ngettext_lazy": 2,
}
"""Whose first arguments are texts, and how many; contexts are not needed so far."""

APART = ("recover.py", "migrations", "testing")
"""What is no part of what operators read, or stands alone with its own texts."""

PLACEHOLDER = re.compile(r"%\(\w+\)[-#0 +\d.]*[a-z]|%[ds]|%%")

Texts = Iterator[tuple[str, ...]]


def in_python(source: str) -> Texts:
    """Yield the marked texts of a module, in their order: a singular with its plural."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call):
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            texts = call.args[: KEYWORDS.get(name, 0)]
            found = [text.value for text in texts if isinstance(text, ast.Constant)]
            if found and len(found) == len(texts):
                yield tuple(map(str, found))


def in_template(source: str) -> Texts:
    """Yield the texts of a Django template."""
    python = io.BytesIO(templatize(source).encode())
    found: Any = extract_python(python, dict.fromkeys(KEYWORDS), [], {})
    for _line, _function, texts, _comments in found:
        yield (texts,) if isinstance(texts, str) else tuple(filter(None, texts))


def extracted() -> Catalog:
    """Return every text of the package that is marked for translation."""
    catalog = Catalog(project="mipyme_backup", charset="utf-8")
    for pattern, texts_in in (("*.py", in_python), ("*.html", in_template)):
        for file in sorted(PACKAGE.rglob(pattern)):
            place = file.relative_to(PACKAGE)
            if place.parts[0] in APART:
                continue
            for texts in texts_in(file.read_text()):
                text = texts if len(texts) > 1 else texts[0]
                catalog.add(text, locations=[(str(place), 0)])
    return catalog


def spanish() -> Catalog:
    with SPANISH.open("rb") as file:
        return read_po(file, locale="es")


def messages(catalog: Catalog) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return the translations by text: what Django reads at run time."""
    return {_strings(one.id): _strings(one.string) for one in catalog if one.id}


def compiled() -> Catalog:
    with COMPILED.open("rb") as file:
        return read_mo(file)


def written(catalog: Catalog) -> bytes:
    """Return the catalog for translators, in the order of files, so that a change is small."""
    content = io.BytesIO()
    write_po(content, catalog, width=100, sort_by_file=True, include_lineno=False)
    return content.getvalue()


def problems(catalog: Catalog, texts: Catalog) -> Iterator[str]:
    """Yield what is wrong with `catalog` as the translation of `texts`."""
    for message in texts:
        if message.id and message.id not in catalog:
            yield f"not in the catalog: {message.id!r}"
    for message in catalog:
        if message.id:
            yield from _problems(message, texts)
    for message in catalog.obsolete.values():
        yield f"obsolete: {message.id!r}"


def _problems(message: Message, texts: Catalog) -> Iterator[str]:
    sources, targets = _strings(message.id), _strings(message.string)
    if message.id not in texts:
        yield f"no longer used: {message.id!r}"
    if message.fuzzy:
        yield f"fuzzy: {message.id!r}"
    if not all(targets):
        yield f"without a translation: {message.id!r}"
        return
    for target in targets:
        if _marks(target) != _marks(sources[0]):
            yield f"other placeholders, or other space around it: {message.id!r} {target!r}"


def _strings(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value or ""),)


def _marks(text: str) -> tuple[set[str], str, str]:
    """Return what a translation must have in common with its text."""
    left, right = len(text) - len(text.lstrip()), len(text.rstrip())
    return {*PLACEHOLDER.findall(text)}, text[:left], text[right:]


def main() -> int:
    """Write the texts of the package into the catalog, and compile it; say what lacks Spanish."""
    texts, catalog = extracted(), spanish()
    catalog.update(texts, no_fuzzy_matching=True, update_creation_date=False)
    catalog.obsolete.clear()
    SPANISH.write_bytes(written(catalog))
    with COMPILED.open("wb") as file:
        write_mo(file, catalog)
    found = [*problems(catalog, texts)]
    sys.stdout.write("\n".join(found) or f"{len(catalog)} texts, all in Spanish")
    sys.stdout.write("\n")
    return len(found) > 0


if __name__ == "__main__":
    sys.exit(main())
