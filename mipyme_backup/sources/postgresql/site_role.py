"""The site's own role, as which a restored database is used before it is live.

What the tables of a backup call (triggers, CHECK, generated columns) runs in the session that
writes to them, and can take on all rights of the role that logged in. That of restores may create
databases, and end sessions; the site's owns what was restored, and no more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mipyme_backup.errors import PreflightError
from mipyme_backup.messages import _
from mipyme_backup.sources.postgresql.connection import connected, without_event_triggers
from mipyme_backup.sources.postgresql.server import Rights
from mipyme_backup.translation import warn

logger = logging.getLogger("mipyme_backup")

EVENT_TRIGGERS_OFF = 17
"""The first version of the server that has the setting."""
LOGIN = ("USER", "PASSWORD")
LOGIN_OPTIONS = ("assume_role", "passfile", "service", "sslcert", "sslkey", "sslpassword")


def as_site(restore: Mapping[str, Any], site: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return `restore`, the settings of restores, for database `name` and the login of `site`."""
    theirs = site.get("OPTIONS") or {}
    options = {
        key: value
        for key, value in (restore.get("OPTIONS") or {}).items()
        if key not in {"pool", *LOGIN_OPTIONS}
    }
    options |= {key: theirs[key] for key in LOGIN_OPTIONS if key in theirs}
    login = {key: site.get(key, "") for key in LOGIN}
    return {**restore, **login, "NAME": name, "OPTIONS": options, "CONN_MAX_AGE": 0}


class SideLogins:
    """Who logs in to the database `side` before it is live; `restore` and `site` are settings."""

    def __init__(
        self, alias: str, restore: Mapping[str, Any], site: Mapping[str, Any], side: str
    ) -> None:
        self._alias = alias
        self._restore = restore
        self._own = as_site(restore, restore, side)
        self._site = as_site(restore, site, side)

    def to_use(self) -> dict[str, Any]:
        """Return the settings with which it is written to and rehearsed: the site's."""
        return self._site if self._site == self._own or self._is_let_in() else self._own

    def to_load(self, allowed: Rights, owner: str, major: int) -> Mapping[str, Any]:
        """Return the settings to load and check with.

        They are the site's where it owns what a plain role loads.
        """
        if allowed.superuser:
            return quiet(self._restore, allowed, major)
        same = allowed.login == self._site["USER"]
        if same or _effective(self._site) != owner or not self._is_let_in():
            return self._restore
        return self._site

    def names(self, allowed: Rights) -> list[str]:
        """Return the roles that must be let in."""
        site = str(self._site["USER"])
        return [allowed.login, *([site] if site in allowed.roles else [])]

    def _is_let_in(self) -> bool:
        """Say whether the site's role can log in; warn where it cannot."""
        try:
            with connected(self._alias, self._site, read_only=True):
                return True
        except PreflightError as error:
            warn(
                logger,
                _(
                    "The site's role cannot log in to what was restored, so the role of restores"
                    " goes on: %(reason)s"
                ),
                reason=str(error),
            )
            return False


def quiet(settings_dict: Mapping[str, Any], allowed: Rights, major: int) -> Mapping[str, Any]:
    """Return the settings with event triggers off, where the role and the server can do that."""
    if allowed.superuser and major >= EVENT_TRIGGERS_OFF:
        return without_event_triggers(settings_dict)
    return settings_dict


def _effective(settings_dict: Mapping[str, Any]) -> str:
    """Return the role that a session with these settings acts as."""
    assumed = (settings_dict.get("OPTIONS") or {}).get("assume_role")
    return str(assumed or settings_dict.get("USER") or "")
