"""The site's own role, as which a restored database is used before it is live.

What the tables of a backup call (triggers, CHECK, generated columns) runs in the session that
writes to them, and can take on all rights of the role that logged in. As the site's role it has no
more than it has every day.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mipyme_backup.errors import PreflightError
from mipyme_backup.messages import _
from mipyme_backup.sources.postgresql.connection import connected
from mipyme_backup.translation import warn

logger = logging.getLogger("mipyme_backup")

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


def effective(settings_dict: Mapping[str, Any]) -> str:
    """Return the role that a session with these settings acts as."""
    assumed = (settings_dict.get("OPTIONS") or {}).get("assume_role")
    return str(assumed or settings_dict.get("USER") or "")


def is_let_in(alias: str, settings_dict: Mapping[str, Any]) -> bool:
    """Say whether the site's role can log in to the restored database; warn where it cannot."""
    try:
        with connected(alias, settings_dict, read_only=True):
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
