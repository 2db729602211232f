"""The rules about what the newest backup holds, against those before it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from mipyme_backup.messages import Message, _
from mipyme_backup.policy.finding import Finding
from mipyme_backup.policy.status_facts import Facts, Policy
from mipyme_backup.policy.suspicion import NAMES_SHOWN, loss, rows_text, size_text

MEANT = Message(
    _(
        "Look what was deleted; until then nothing is pruned. Where it is meant, wait: it is the"
        " usual size from the fifth such backup on. Not to wait, set max_shrink in ALERTS to 1 for"
        " that time."
    )
)


def shrunk(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    lost = loss(policy.max_shrink, facts.backups)
    if lost is None:
        return
    text = _("The newest good backup, %(name)s, has shrunk: %(what)s")
    if lost.size is not None:
        params = {"name": lost.backup.name, "what": size_text(lost.size)}
        yield Finding(id="size_fallen", level="warning", message=Message(text, params), hint=MEANT)
    if lost.rows:
        params = {"name": lost.backup.name, "what": rows_text(lost.rows)}
        yield Finding(id="rows_fallen", level="warning", message=Message(text, params), hint=MEANT)
    if lost.vanished:
        names = [*lost.vanished[:NAMES_SHOWN], *(["…"] if lost.vanished[NAMES_SHOWN:] else [])]
        yield Finding(
            id="tables_vanished",
            level="warning",
            message=Message(
                _(
                    "The newest good backup, %(name)s, lacks tables that had rows in the one"
                    " before it (%(count)d): %(tables)s"
                ),
                {
                    "name": lost.backup.name,
                    "count": len(lost.vanished),
                    "tables": ", ".join(names),
                },
            ),
            hint=Message(
                _(
                    "Where no migration removed them, restore the backup before this one beside"
                    " the live data: manage.py restore ID --to-database NAME"
                )
            ),
        )
