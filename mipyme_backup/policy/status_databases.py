"""The rules about the live databases: are they there, and do they hold what was saved of them?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from mipyme_backup.messages import Message, _
from mipyme_backup.policy.finding import Finding
from mipyme_backup.policy.own_rows import own_tables
from mipyme_backup.policy.status_facts import DatabaseFacts, Facts, Policy
from mipyme_backup.policy.suspicion import FEWEST_TABLES, emptied

GONE = frozenset({"missing", "bare"})
RESTORE_FIRST = Message(
    _(
        "Restore first: manage.py restore --latest. Do not run migrate before: it makes empty"
        " tables, which look like a database in use."
    )
)


def lost_databases(facts: Facts) -> list[DatabaseFacts]:
    """Return the databases without tables that backups hold, as far as that can be known.

    Where no backup is in sight, this host remembers whether it made one.
    """
    gone = [database for database in facts.databases if database.condition in GONE]
    held = [database for database in gone if database.held]
    remembered = facts.newest_good() is None and facts.highest_known > 0
    return gone if remembered and len(gone) == len(facts.databases) else held


def lost(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    yield from lost_findings(facts)


def lost_findings(facts: Facts) -> Iterator[Finding]:
    for database in lost_databases(facts):
        text = _("The database %(alias)s has no table of the project, and backups of it exist.")
        if database.condition == "missing":
            text = _("The database %(alias)s does not exist, and backups of it exist.")
        yield Finding(
            id=f"database_lost:{database.alias}",
            level="critical",
            message=Message(text, {"alias": database.alias}),
            hint=RESTORE_FIRST,
        )


def rows_gone(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    newest = facts.newest_good()
    held = [database for database in facts.databases if database.held]
    several = newest is not None and len(own_tables(newest.rows)) >= FEWEST_TABLES and held
    if newest is not None and several and all(one.condition == "emptied" for one in held):
        yield Finding(
            id="rows_gone",
            level="critical",
            message=Message(
                _(
                    "Every table that has rows in the newest good backup, %(name)s, is empty in"
                    " the database."
                ),
                {"name": newest.name},
            ),
            hint=Message(
                _(
                    "If that is not intended, restore: manage.py restore %(id)s. The next backup"
                    " will be one without these rows."
                ),
                {"id": newest.id[:8]},
            ),
        )
        return
    found = emptied(policy.max_shrink, facts.backups)
    if found is not None:
        yield Finding(
            id="rows_gone",
            level="critical",
            message=Message(
                _(
                    "The newest good backup, %(name)s, has no rows in most tables (%(count)d) that"
                    " had some in %(before)s."
                ),
                {
                    "name": found.backup.name,
                    "count": len(found.tables),
                    "before": found.before.name,
                },
            ),
            hint=Message(
                _(
                    "If that is not intended, restore the older one: manage.py restore %(id)s."
                    " Until then nothing is pruned. If it is, set max_shrink in ALERTS to 1 for a"
                    " week."
                ),
                {"id": found.before.id[:8]},
            ),
        )
