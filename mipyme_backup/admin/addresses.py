"""Where the pages are: a project's own site need not show all of them."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse


def address(model: str, pk: int, site_name: str) -> str | None:
    """Return the address of a row's page in the admin's site; None where it shows no such rows."""
    try:
        return reverse(f"admin:mipyme_backup_{model}_change", args=[pk], current_app=site_name)
    except NoReverseMatch:
        return None


def address_for(request: HttpRequest, model: str, pk: int, site_name: str) -> str | None:
    """Return the address of a row's page; None where this user may not see such rows, either."""
    user: Any = request.user
    rights = (f"mipyme_backup.{right}_{model}" for right in ("view", "change"))
    return address(model, pk, site_name) if any(map(user.has_perm, rights)) else None
