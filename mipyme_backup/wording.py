"""What a library or a service says of an error, fit to be shown: short, and without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

SECRET = re.compile(r"key|secret|token|pass|credential|connection_string|sas", re.IGNORECASE)
USER = re.compile(r"//[^/@\s]*@")
QUERY = re.compile(r"\?[^\s'\"]*")
LONGEST = 300
SHORTEST_SECRET = 4


def reason_of(error: BaseException | str, storage: Any) -> str:
    """Return the text of `error`, or its type's name where it has none.

    Values of the storage's options that may be secret are left out, and so are the queries of
    URLs, which carry signatures.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    for secret in sorted(_secrets(vars(storage)), key=len, reverse=True):
        text = text.replace(secret, "***")
    return QUERY.sub("?***", text)[:LONGEST]


def place_with(place: str, options: Mapping[str, Any]) -> str:
    """Return `place` with the options that have a value, in their own words.

    A URL is shown without the user, password and query that it may hold.
    """
    shown = [f"{name}={_without_secrets(str(value))}" for name, value in options.items() if value]
    return f"{place} ({', '.join(shown)})" if shown else place


def _without_secrets(text: str) -> str:
    return QUERY.sub("", USER.sub("//", text))


def _secrets(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _secrets({str(key): below for key, below in value.items()})
        elif isinstance(value, str) and len(value) >= SHORTEST_SECRET and SECRET.search(name):
            yield value
