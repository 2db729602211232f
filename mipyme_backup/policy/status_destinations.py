"""The rules about destinations: can they be used, and do they have what they should?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from mipyme_backup.messages import Message, _
from mipyme_backup.policy.finding import Finding, age_text
from mipyme_backup.policy.status_facts import (
    DAMAGED,
    BackupFacts,
    DestinationFacts,
    Facts,
    Policy,
)

NAMES_SHOWN = 3
NAME_LENGTH = 80

MANY = 100
"""So many foreign things may be a folder that is shared; more are somebody's mistake, or attack."""

SKEW = timedelta(minutes=5)
"""A clock that is kept by NTP is right to a second; S3 refuses what is 15 minutes off."""

OLD_KEY = Message(
    _(
        "Add the file of the old passphrase, or of the old signing key, to old_passphrase_files in"
        " the OPTIONS of ENCRYPTION; recipients may stand beside it. Keep it until these backups"
        " have expired."
    )
)
NO_KEY = Message(
    _("Set ENCRYPTION again, with the passphrase file that they were made with, to restore them.")
)
"""With other settings, or with none, what an earlier key made is only as good as that key."""

COPY_TEXTS = {
    "failed": _("Copying the newest backup, %(name)s, to %(destination)s failed: %(reason)s"),
    "pending": _("The newest backup, %(name)s, is not on %(destination)s yet."),
    "missing": _("The newest backup, %(name)s, has no copy on %(destination)s."),
    "damaged": _("The newest backup, %(name)s, is damaged on %(destination)s: %(reason)s"),
}


def away(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    away = [item for item in facts.destinations if not item.reachable or item.writable is False]
    for destination in away:
        unwritable = destination.reachable
        text = _("The destination %(name)s cannot be reached: %(reason)s")
        if unwritable:
            text = _("The destination %(name)s takes no backups: %(reason)s")
        kind = "unwritable" if unwritable else "unreachable"
        yield Finding(
            id=f"destination_{kind}:{destination.name}",
            level="critical" if len(away) == len(facts.destinations) else "warning",
            message=Message(text, {"name": destination.name, "reason": destination.error or "-"}),
            hint=destination.hint
            if destination.hint.text
            else Message(_("Look at it, and at its entry in DESTINATIONS.")),
        )


def copies(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    newest = facts.newest_good()
    for destination in _reachable(facts):
        copy = newest.copies.get(destination.name) if newest else None
        if newest is None or copy is None or copy.status not in COPY_TEXTS:
            continue  # complete, or pruned on purpose
        reason = {"reason": copy.error.partition("\n")[0] or "-"}
        yield Finding(
            id=f"copy_{copy.status}:{destination.name}",
            level="warning",
            message=Message(
                COPY_TEXTS[copy.status],
                {"name": newest.name, "destination": destination.name, **reason},
            ),
            hint=_mend(newest, destination)
            if copy.status == DAMAGED
            else _complete(newest, destination),
        )


def behind(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    """Where another destination has what is asked for, and nobody meant to send it here."""
    newest = facts.newest_dated(now)
    if newest is None or policy.is_too_old(newest.finished_at, now):
        return
    for destination in _reachable(facts):
        if destination.name in newest.copies:
            continue
        held = facts.newest_dated(now, destination.name)
        if held is None and facts.newest_good(destination.name) is not None:
            yield Finding(
                id=f"destination_old:{destination.name}",
                level="warning",
                message=Message(
                    _("Every good backup on %(destination)s is dated ahead of now."),
                    {"destination": destination.name},
                ),
                hint=_complete(newest, destination),
            )
        elif held is None:
            yield Finding(
                id=f"destination_empty:{destination.name}",
                level="warning",
                message=Message(
                    _("The destination %(name)s holds no good backup."), {"name": destination.name}
                ),
                hint=_complete(newest, destination),
            )
        elif policy.is_too_old(held.finished_at, now):
            yield Finding(
                id=f"destination_old:{destination.name}",
                level="warning",
                message=Message(
                    _("The newest good backup on %(destination)s, %(name)s, is %(age)s old."),
                    {
                        "destination": destination.name,
                        "name": held.name,
                        "age": age_text(now - held.finished_at),
                    },
                ),
                hint=_complete(newest, destination),
            )


def unreadable(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    for destination in facts.destinations:
        names = destination.unreadable
        if names:
            shown = [*names[:NAMES_SHOWN], "…"] if len(names) > NAMES_SHOWN else names
            yield Finding(
                id=f"unreadable:{destination.name}",
                level="warning",
                message=Message(
                    _(
                        "%(destination)s holds what cannot be read as a backup (%(count)d:"
                        " %(names)s): %(reason)s"
                    ),
                    {
                        "count": len(names),
                        "destination": destination.name,
                        "names": ", ".join(shown),
                        "reason": destination.unreadable_reason,
                    },
                ),
                hint=destination.unreadable_hint
                if destination.unreadable_hint.text
                else Message(
                    _(
                        "Where it was made with another key, name that in ENCRYPTION; else look"
                        " at the disk."
                    )
                ),
            )


def need_key(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    """What another key made was not removed, and is not damaged."""
    for destination in facts.destinations:
        names = destination.need_key
        if names:
            yield Finding(
                id=f"old_key_needed:{destination.name}",
                level="warning",
                message=Message(
                    _(
                        "%(count)d backups on %(destination)s were made with another key, and"
                        " cannot be read without it: %(names)s"
                    ),
                    {
                        "count": len(names),
                        "destination": destination.name,
                        "names": ", ".join([*names[:NAMES_SHOWN], *(["…"] * (len(names) > 3))]),
                    },
                ),
                hint=OLD_KEY if facts.encryption else NO_KEY,
            )


def program_changed(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    """People give their passphrase to what lies there as ``recover.py``.

    Where manifests are signed they say which versions put theirs there; else it may be older.
    """
    for destination in facts.destinations:
        if destination.program_changed:
            yield Finding(
                id=f"recovery_program_changed:{destination.name}",
                level="critical" if facts.encryption else "warning",
                message=Message(
                    _("recover.py on %(name)s is not the one that this software put there."),
                    {"name": destination.name},
                ),
                hint=Message(
                    _(
                        "Do not run it: it could send the passphrase away. A backup replaces it"
                        " where that is allowed: manage.py backup. Look who can write there."
                    )
                ),
            )


def foreign(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    """What is not ours harms nothing, and is told for who may wonder; much of it slows each run."""
    for destination in facts.destinations:
        count, names = destination.foreign, destination.foreign_names
        if count:
            shown = [name if is_plain(name) else ascii(name)[:NAME_LENGTH] for name in names]
            yield Finding(
                id=f"foreign_objects:{destination.name}",
                level="ok" if count <= MANY else "warning",
                message=Message(
                    _("%(destination)s holds what is no backup (%(count)d or more): %(names)s"),
                    {
                        "destination": destination.name,
                        "count": count,
                        "names": ", ".join([*shown, *(["…"] if count > len(shown) else [])]),
                    },
                ),
                hint=Message(
                    _(
                        "It is left alone. Where it is not yours, look who can write there, and run"
                        " nothing of it. A place for backups alone is best."
                    )
                ),
            )


def is_plain(name: str) -> bool:
    """Say whether a name can be shown as it is, on one line, and nobody takes it for another."""
    return name.isprintable() and name == name.strip() and len(name) <= NAME_LENGTH


def all_here(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    """What burns, is stolen or is encrypted by an intruder goes together with the site."""
    if facts.destinations and all(destination.here for destination in facts.destinations):
        yield Finding(
            id="copies_here",
            level="warning",
            message=Message(_("Every copy is on this server: what destroys it destroys them too.")),
            hint=Message(
                _(
                    "Add a destination elsewhere to DESTINATIONS: S3, SFTP, rsync (see"
                    " docs/howto/offsite.md). The next backup then goes there as well."
                )
            ),
        )


def full(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    for destination in facts.destinations:
        free, total = destination.free, destination.total
        if destination.remote or free is None or not total:
            continue
        if free / total < policy.min_free_disk:
            yield Finding(
                id=f"disk_low:{destination.name}",
                level="warning",
                message=Message(
                    _("The disk of %(name)s has %(share)d %% free; %(limit)d %% are asked for."),
                    {
                        "name": destination.name,
                        "share": 100 * free // total,
                        "limit": round(100 * policy.min_free_disk),
                    },
                ),
                hint=Message(_("Free some space there, or give the backups a larger disk.")),
            )


def _reachable(facts: Facts) -> list[DestinationFacts]:
    return [destination for destination in facts.destinations if destination.reachable]


def _complete(backup: BackupFacts, destination: DestinationFacts) -> Message:
    return Message(
        _("Complete that copy: manage.py backup --complete %(id)s --destination %(name)s"),
        {"id": backup.id[:8], "name": destination.name},
    )


def _mend(backup: BackupFacts, destination: DestinationFacts) -> Message:
    return Message(
        _(
            "Mend that copy: manage.py backup --complete %(id)s --destination %(name)s, then"
            " manage.py verify_backups %(id)s"
        ),
        {"id": backup.id[:8], "name": destination.name},
    )


def skewed(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    for destination in facts.destinations:
        skew = destination.skew
        if skew is None or abs(skew) <= SKEW:
            continue
        text = _("The clock of %(name)s is %(time)s ahead of the one of this host.")
        if skew < timedelta(0):
            text = _("The clock of %(name)s is %(time)s behind the one of this host.")
        yield Finding(
            id=f"clock_skewed:{destination.name}",
            level="warning",
            message=Message(text, {"name": destination.name, "time": age_text(abs(skew))}),
            hint=Message(
                _("Set both by NTP (timedatectl set-ntp true): how old a backup is depends on it.")
            ),
        )
