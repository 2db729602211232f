"""The rules about what the newest backup holds and lacks, against those before it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from mipyme_backup.messages import Message, _
from mipyme_backup.policy.finding import Finding, Level
from mipyme_backup.policy.left_out import joined
from mipyme_backup.policy.status_facts import Facts, Policy, newest_first
from mipyme_backup.policy.suspicion import NAMES_SHOWN, loss, rows_text, size_text

MEANT = Message(
    _(
        "Look what was deleted; until then nothing is pruned. Where it is meant, wait: it is the"
        " usual size from the fifth such backup on. Not to wait, set max_shrink in ALERTS to 1 for"
        " that time."
    )
)


def left_out(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    newest = facts.newest_good()
    for source in dict.fromkeys(lack.source for lack in newest.lacks) if newest else ():
        assert newest is not None
        found = [lack for lack in newest.lacks if lack.source == source]
        level: Level = "ok"
        if any(lack.severity == "warning" for lack in found):
            level = "warning"
        yield Finding(
            id=f"left_out:{source}",
            level=level,
            message=Message(
                _("The newest good backup, %(name)s, is missing parts of %(source)s: %(what)s"),
                {
                    "name": newest.name,
                    "source": source,
                    "what": joined([lack.message for lack in found]),
                },
            ),
            hint=Message(
                _(
                    "The backup's warnings name some: manage.py list_backups --json. The user that"
                    " makes the backup needs the right to read all of it."
                )
                if level == "warning"
                else _("The dump holds these rows: only a restore of fixtures alone lacks them.")
            ),
        )


def files_missing(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    """Old names without a file are a project's own affair; new ones show that files vanish."""
    newest, before = [*newest_first(facts.good), None, None][:2]
    if newest is None or not newest.missing:
        return
    more = newest.missing - before.missing if before is not None else 0
    text = _("Rows name files that do not exist (%(count)d), as they did in earlier backups.")
    if more > 0:
        text = _(
            "Rows name files that do not exist (%(count)d): %(more)d more than in the backup before"
            " %(name)s."
        )
    yield Finding(
        id="files_missing",
        level="warning" if more > 0 else "ok",
        message=Message(text, {"count": newest.missing, "more": more, "name": newest.name}),
        hint=Message(
            _(
                "The backup's warnings name some: manage.py list_backups --json. If files were"
                " deleted by mistake, an older backup has them: manage.py restore ID --only media"
                " --to-media DIR"
            )
        ),
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
