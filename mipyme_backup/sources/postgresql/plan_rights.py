"""What a restore's role may not do, or does for others, as steps of its plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import Message, _
from mipyme_backup.sources.postgresql import content
from mipyme_backup.sources.postgresql import owner_rights as rights_of_owners
from mipyme_backup.sources.postgresql.connection import identifier
from mipyme_backup.sources.postgresql.situation import Situation


def may_create(situation: Situation, cursor: Any) -> Iterator[Message]:
    rights = situation.rights
    if not rights.createdb:
        raise RestoreError(
            _("The role %(role)s may not create databases, so nothing can be loaded beside"),
            hint=_(
                "As administrator: ALTER ROLE %(quoted)s CREATEDB; "
                "or replace what is live in one transaction, without an undo: --in-place"
            ),
            role=rights.role,
            quoted=identifier(rights.role),
        )
    if situation.live is not None:
        cursor.execute(
            "SELECT pg_catalog.pg_get_userbyid(datdba), pg_has_role(datdba, 'USAGE') "
            "FROM pg_catalog.pg_database WHERE datname = %s",
            [situation.live],
        )
        owner, is_ours = cursor.fetchone()
        # A restored database that fell to our role would be closed to the site's.
        if not is_ours or owner not in rights.assumable:
            raise RestoreError(
                _("The role %(role)s cannot replace %(live)s, which belongs to %(owner)s"),
                hint=_("As administrator: %(grant)s"),
                role=rights.role,
                live=situation.live,
                owner=owner,
                grant=_membership(situation, str(owner)),
            )
    yield from ()


def row_security(situation: Situation, cursor: Any) -> Iterator[Message]:
    forced = situation.facts.get("row_security_forced") or ()
    if forced and not situation.rights.bypassrls:
        raise RestoreError(
            _("%(role)s could not check %(tables)s: row security is forced on their owner too"),
            hint=_("As administrator: ALTER ROLE %(quoted)s BYPASSRLS;"),
            role=situation.rights.role,
            tables=", ".join(forced),
            quoted=identifier(situation.rights.role),
        )
    yield from ()


def foreign_data_wrappers(situation: Situation, cursor: Any) -> Iterator[Message]:
    used = situation.facts.get("foreign_data_wrappers_used") or ()
    if used and not situation.rights.superuser:
        raise RestoreError(
            _("The backup needs foreign data wrappers that %(role)s may not create: %(names)s"),
            hint=_("Only a superuser may: give restore_connections one for this restore."),
            role=situation.rights.role,
            names=", ".join(used),
        )
    yield from ()


def _membership(situation: Situation, owner: str) -> str:
    """Return the statement that lets our role act for `owner`, also where it is a member."""
    options = " WITH INHERIT TRUE, SET TRUE" if situation.major >= 16 else ""
    return f"GRANT {identifier(owner)} TO {identifier(situation.rights.role)}{options};"


def roles(situation: Situation, cursor: Any) -> Iterator[Message]:
    rights = situation.rights
    missing = sorted(set(situation.facts.get("roles") or ()) - rights.roles)
    owners = {name for name in situation.facts.get("owners") or () if not name.startswith("pg_")}
    if missing:
        yield Message(
            _(
                "The roles %(roles)s are not on this server: owners and privileges are not "
                "restored. To keep them, an administrator first creates the roles: %(sql)s"
            ),
            {
                "roles": ", ".join(missing),
                "sql": " ".join(f"CREATE ROLE {identifier(name)};" for name in missing),
            },
        )
    owner = str(situation.facts.get("owner") or "")
    if owner in rights.roles - rights.assumable:
        yield Message(
            _(
                "%(name)s will belong to %(role)s and not to %(owner)s as in the backup, so the"
                " site may find it closed. To change that, as administrator: %(grant)s"
            ),
            {
                "name": situation.name,
                "role": situation.properties.get("owner"),
                "owner": owner,
                "grant": _membership(situation, owner),
            },
        )
    if (missing or not rights.superuser) and owners - {rights.role}:
        yield Message(
            _("Everything will belong to %(role)s; in the backup it belongs to %(owners)s"),
            {"role": _new_owner(situation), "owners": ", ".join(sorted(owners))},
        )


def owner_rights(situation: Situation, cursor: Any) -> Iterator[Message]:
    rights = situation.rights
    if rights.superuser and rights.roles.issuperset(situation.facts.get("roles") or ()):
        return
    trusted = rights_of_owners.trusted_owners(cursor, _new_owner(situation), situation.facts)
    yield from rights_of_owners.planned(situation.facts, trusted)


def _new_owner(situation: Situation) -> str:
    """Return the role that everything belongs to where owners are not restored."""
    rights = situation.rights
    return rights.role if rights.superuser else str(situation.properties.get("owner") or "")


def as_superuser(situation: Situation, cursor: Any) -> Iterator[Message]:
    if not situation.rights.superuser:
        return
    superusers = content.names(cursor, "SELECT rolname FROM pg_catalog.pg_roles WHERE rolsuper")
    if others := sorted(set(situation.facts.get("owners") or ()) - {*superusers}):
        yield Message(
            _(
                "%(role)s is a superuser, and functions that the tables of %(owners)s call run with"
                " its rights while they are loaded. If you do not trust these roles, give"
                " restore_connections a role that is no superuser."
            ),
            {"role": situation.rights.login, "owners": ", ".join(others)},
        )


def in_place_owners(situation: Situation, cursor: Any) -> Iterator[Message]:
    owners = {name for name in situation.facts.get("owners") or () if not name.startswith("pg_")}
    if owners - {situation.rights.role}:
        yield Message(
            _("Everything will belong to %(role)s; in the backup it belongs to %(owners)s"),
            {"role": situation.rights.role, "owners": ", ".join(sorted(owners))},
        )
