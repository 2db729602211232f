"""The rules about this host: its encryption, its key, its catalog."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from mipyme_backup.messages import Message, _
from mipyme_backup.places import GOOD_PLACE
from mipyme_backup.policy.finding import Finding
from mipyme_backup.policy.status_databases import lost_databases
from mipyme_backup.policy.status_facts import Facts, Policy

KEY_WARNING = timedelta(days=30)
"""How long before its end a key is told of: a new one has to be made elsewhere and brought here."""


def unencrypted(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    if facts.encryption is None:
        yield Finding(
            id="not_encrypted",
            level="warning",
            message=Message(_("Backups are not encrypted: who finds one, reads it.")),
            hint=Message(_("Set ENCRYPTION in MIPYME_BACKUP to a passphrase file.")),
        )


def no_catalog(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    """Where its database was lost, that is what has to be told."""
    if not facts.catalog and not lost_databases(facts):
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


def key_expiring(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    expires = facts.key_expires
    if expires is None or expires - now > KEY_WARNING:
        return
    expired = expires <= now
    text = _("A key that backups are encrypted to expires on %(date)s: no backup is made then.")
    if expired:
        text = _("A key that backups are encrypted to expired on %(date)s: no backup is made.")
    yield Finding(
        id=f"key_{'expired' if expired else 'expiring'}",
        level="critical" if expired else "warning",
        message=Message(text, {"date": f"{expires:%Y-%m-%d}"}),
        hint=Message(
            _(
                "Where its secret key is: gpg --quick-set-expire FINGERPRINT 3y, and the same with"
                " '*' behind it for the subkeys; export it, and import that into the keyring here."
            )
        ),
    )


def review_overdue(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    if policy.review is not None and now.date() > policy.review:
        yield Finding(
            id="policy_review_overdue",
            level="warning",
            message=Message(
                _("The review of the backup policy was due on %(date)s."),
                {"date": policy.review.isoformat()},
            ),
            hint=Message(
                _("Go through the policy and its contacts, then set POLICY_REVIEW to the next day.")
            ),
        )


def state_ignored(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    for number, record in enumerate(facts.ignored, start=1):
        yield Finding(
            id=f"state_ignored:{number}",
            level="critical" if record.interrupted else "warning",
            message=record.message,
            hint=record.hint,
        )


def unremoved(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    for restore_id, reason in facts.unremoved.items():
        yield Finding(
            id=f"restore_unremoved:{restore_id}",
            level="warning",
            message=Message(
                _("What the restore or drill %(id)s made or replaced is still there: %(reason)s"),
                {"id": restore_id, "reason": reason},
            ),
            hint=Message(
                _("It takes room, and may be read. Fix the reason: each run tries to remove it.")
            ),
        )


def state_misplaced(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    misplaced = facts.misplaced
    if misplaced is None:
        return
    text = _("STATE_DIR (%(place)s): %(reason)s.")
    if misplaced.restores:
        text = _("STATE_DIR (%(place)s): %(reason)s. A restore is unfinished, or can be undone.")
    yield Finding(
        id="state_misplaced",
        level="critical" if misplaced.restores else "warning",
        message=Message(text, {"place": misplaced.place, "reason": Message(misplaced.reason)}),
        hint=Message(GOOD_PLACE),
    )
