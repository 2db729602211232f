"""The texts of `messages` in the active language, for whoever speaks to people."""

from __future__ import annotations

from django.utils.translation import gettext

from mipyme_backup.messages import Message


def translated(message: Message) -> str:
    """Return the text in the active language, with that of the messages within."""
    text = gettext(message.text) if message.text else ""
    params = {
        name: translated(value) if isinstance(value, Message) else value
        for name, value in message.params.items()
    }
    return text % params if params else text
