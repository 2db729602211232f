"""Which URLs may be called: https, with a host, without user or password. Imports no Django."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from mipyme_backup.messages import _


@dataclass(frozen=True, kw_only=True)
class Target:
    """An https URL in parts; `path` with its query."""

    host: str
    port: int
    path: str


def parse(url: str) -> Target:
    """Return the parts of `url`; raises ValueError, which never shows it: it may hold a token."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError(_("it holds characters that a URL cannot hold"))
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(_("it is malformed")) from None
    if parts.scheme != "https":
        raise ValueError(_("it is not https"))
    if "@" in parts.netloc:
        raise ValueError(_("it holds a user or a password"))
    if not parts.hostname or port == 0:
        raise ValueError(_("it names no host, or no possible port"))
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(host=parts.hostname, port=port or 443, path=path)


def with_ending(url: str, ending: str) -> str:
    """Return `url` with `ending` after its path, before its query."""
    parts = urlsplit(url)
    return parts._replace(path=parts.path.rstrip("/") + ending, fragment="").geturl()
