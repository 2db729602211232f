"""What was sent where, a line for each channel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.utils.translation import gettext as _
from rich.markup import escape

from mipyme_backup.api import Delivery
from mipyme_backup.translation import said


def render(deliveries: Sequence[Delivery]) -> Iterator[str]:
    """Yield the lines."""
    if not deliveries:
        yield f"[yellow]{escape(_('Nobody is told: ALERTS names no recipient and no webhook.'))}[/]"
    for delivery in deliveries:
        style = "red" if delivery.failed else "green" if delivery.event else "dim"
        yield f"[{style}]{escape(f'{delivery.channel}: {_said(delivery)}')}[/]"


def _said(delivery: Delivery) -> str:
    if delivery.failed:
        return _("not sent: %(reason)s") % {"reason": said(delivery.error)}
    if not delivery.event:
        return _("nothing new to tell")
    if not delivery.raised and not delivery.cleared:
        return _("sent (%(event)s)") % {"event": delivery.event}
    return _("sent (new: %(raised)s; ended: %(cleared)s)") % {
        "raised": ", ".join(delivery.raised) or "-",
        "cleared": ", ".join(delivery.cleared) or "-",
    }
