"""The channel of mails: one for each message, to all recipients."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from django.conf import settings as django_settings
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.smtp import EmailBackend
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from mipyme_backup.errors import AlertError
from mipyme_backup.messages import _ as marked
from mipyme_backup.monitoring.notice import Notice
from mipyme_backup.policy.status import Finding, age_text
from mipyme_backup.printable import printable
from mipyme_backup.translation import said, translated

SECONDS = 30
"""How long the mail server may be silent, where EMAIL_TIMEOUT says nothing of it."""


class Mail:
    """Sends to the `recipients`, through the mail backend of the project.

    What others were told before them counts for nothing: of those, one may have been misspelt.
    """

    name = "e-mail"

    def __init__(self, recipients: Sequence[str]) -> None:
        self._recipients = list(recipients)
        who = "\n".join(sorted(recipients))
        self.key = f"mail-{hashlib.sha256(who.encode()).hexdigest()[:32]}"

    def send(self, notice: Notice) -> None:
        """Send `notice`; raises AlertError where nothing was sent, or what the backend raises."""
        connection = get_connection()
        if isinstance(connection, EmailBackend) and connection.timeout is None:
            connection.timeout = SECONDS
        message = EmailMessage(
            subject(notice),
            printable(body(notice)),
            sender(),
            self._recipients,
            connection=connection,
            headers={
                "Auto-Submitted": "auto-generated"
            },  # RFC 3834: so that nobody's absence answers
        )
        if message.send() == 0:
            raise AlertError(marked("The mail backend has sent nothing."))


def admins() -> list[str]:
    """Return the addresses in ADMINS: pairs with a name up to Django 5.2, then also texts."""
    return [entry if isinstance(entry, str) else entry[1] for entry in django_settings.ADMINS]


def sender() -> str:
    """Return SERVER_EMAIL where it is set, else DEFAULT_FROM_EMAIL."""
    if django_settings.is_overridden("SERVER_EMAIL"):  # type: ignore[misc]
        return str(django_settings.SERVER_EMAIL)
    return str(django_settings.DEFAULT_FROM_EMAIL)


def subject(notice: Notice) -> str:
    """Return one line, whatever the project's name holds."""
    status, count = notice.status, len(notice.problems)
    words = {"ok": _("fine"), "warning": _("warning"), "critical": _("critical")}
    said = words[status.level]
    if notice.event == "test":
        said = _("test message")
    elif count:
        said += " - " + ngettext("%d problem", "%d problems", count) % count
    elif notice.cleared:
        said = _("fine again")
    if notice.event == "digest":
        said += f" ({_('report')})"
    project = "".join(letter if letter.isprintable() else " " for letter in status.project)
    return f"[{project}] {_('Backups')}: {said}"


def body(notice: Notice) -> str:
    """Return the text: what is new, what has ended, what else is wrong, and what is well."""
    status = notice.status
    where = _("%(project)s on %(host)s") % {"project": status.project, "host": status.host}
    paragraphs = [f"{where}, {_moment(status.at)}"]
    if notice.event == "test":
        paragraphs.append(_("This is a test: alerts about the backups arrive here."))
    new = {finding.id for finding in notice.raised}
    sections = [
        (_("New:"), _findings(notice.raised)),
        (_("Ended:"), _ended(notice)),
        (_("Still wrong:"), _findings(item for item in notice.problems if item.id not in new)),
        (_("Well:"), _good_news(notice)),
    ]
    for title, lines in sections:
        if text := "\n".join(lines):
            paragraphs.append(f"{title}\n{text}")
    if notice.event != "test":
        paragraphs.append(_("More: manage.py backup_status"))
    return "\n\n".join(paragraphs) + "\n"


def _findings(found: Iterable[Finding]) -> Iterator[str]:
    levels = {"ok": _("fine"), "warning": _("warning"), "critical": _("critical")}
    for finding in found:
        yield f"* {levels[finding.level].upper()}: {translated(finding.message)}"
        if hint := translated(finding.hint):
            yield f"  -> {hint}"


def _ended(notice: Notice) -> Iterator[str]:
    for item in notice.cleared:
        since = _("since %(moment)s") % {"moment": _moment(item.since)}
        yield f"* {said(item.text)} ({since})"


def _good_news(notice: Notice) -> Iterator[str]:
    facts = notice.status.facts
    newest = facts.newest_good()
    if newest is not None:
        age = age_text(notice.status.at - newest.finished_at)
        yield "* " + _("The newest good backup is %(name)s, %(age)s old.") % {
            "name": newest.name,
            "age": age,
        }
    for item in facts.destinations:
        if item.reachable and item.writable is not False:
            yield "* " + ngettext(
                "%(name)s takes backups, and holds %(count)d.",
                "%(name)s takes backups, and holds %(count)d.",
                item.backups,
            ) % {"name": item.name, "count": item.backups}


def _moment(at: datetime) -> str:
    return f"{localtime(at):%Y-%m-%d %H:%M} {django_settings.TIME_ZONE}"
