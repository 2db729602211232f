"""Which names an object may have, the same at every destination."""

from __future__ import annotations

from mipyme_backup.errors import DestinationError
from mipyme_backup.messages import _

MOST_STEPS = 3
"""``monthly/<backup>/<file>``: no object lies deeper, and nobody looks there."""


def is_name(name: str) -> bool:
    """Say whether an object may be called so.

    A name leads nowhere else, and does not begin with a dot: what does, at a destination's root,
    is the destination's own. It has three steps at the most.
    """
    return (
        not name.startswith(".")
        and name.count("/") < MOST_STEPS
        and {"", ".", ".."}.isdisjoint(name.split("/"))
        and "\0" not in name
    )


def check_name(name: str) -> None:
    """Raise DestinationError where no object may be called so."""
    if not is_name(name):
        raise DestinationError(_("%(name)r is no name of an object."), name=name)
