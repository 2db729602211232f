"""The rules about this host: its encryption, its key, its catalog."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from mipyme_backup.messages import Message, _
from mipyme_backup.policy.finding import Finding
from mipyme_backup.policy.status_facts import Facts, Policy


def unencrypted(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    if facts.encryption is None:
        yield Finding(
            id="not_encrypted",
            level="warning",
            message=Message(_("Backups are not encrypted: who finds one, reads it.")),
            hint=Message(_("Set ENCRYPTION in MIPYME_BACKUP to a passphrase file.")),
        )


def no_catalog(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    if not facts.catalog:
        yield Finding(
            id="no_catalog",
            level="warning",
            message=Message(
                _("The catalog cannot be read: how runs ended and what was verified is not known.")
            ),
            hint=Message(_("manage.py migrate, then: manage.py list_backups --sync")),
        )


def cannot_open(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    if not facts.opens:
        yield Finding(
            id="cannot_open",
            level="ok",
            message=Message(
                _("This host cannot open its own backups: they are encrypted to public keys.")
            ),
            hint=Message(
                _("Verifying content, drills and restores need a host that has the secret key.")
            ),
        )
