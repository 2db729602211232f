"""Where the pages are: a project's own site need not show all of them."""

from __future__ import annotations

from django.urls import NoReverseMatch, reverse


def address(model: str, pk: int, site_name: str) -> str | None:
    """Return the address of a row's page in the admin's site; None where it shows no such rows."""
    try:
        return reverse(f"admin:mipyme_backup_{model}_change", args=[pk], current_app=site_name)
    except NoReverseMatch:
        return None
