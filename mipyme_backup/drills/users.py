"""A temporary user who logs in, and one who is created, read, changed and deleted."""

from __future__ import annotations

import contextlib
import secrets
import uuid
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from django.contrib import auth
from django.db import connections, models, router
from django.test import Client, RequestFactory
from django.utils import timezone

from mipyme_backup.messages import _
from mipyme_backup.sources.postgresql import schemas

NAME = "restore-drill"


def login() -> Iterator[str]:
    """Yield why a temporary user cannot log in, by the project's own back ends."""
    with _among_users():
        yield from _login()


def crud() -> Iterator[str]:
    """Yield what of creating, reading, changing and deleting a user does not work."""
    with _among_users():
        yield from _crud()


def _among_users() -> contextlib.AbstractContextManager[None]:
    """Work in a schema that has all that refers to a user, where bare names do not reach it.

    Tenants have tables of their own, and a user who is deleted is looked for in each of them.
    """
    model = auth.get_user_model()
    alias = router.db_for_write(model)
    if connections[alias].vendor != "postgresql":
        return contextlib.nullcontext()
    names = {model._meta.db_table}
    names |= {relation.related_model._meta.db_table for relation in model._meta.related_objects}
    found = schemas.find_tables(alias, names)
    lacking = names - found.reached.keys()
    for schema, tables in found.others.items():
        if lacking and {model._meta.db_table, *lacking} <= tables.keys():
            return schemas.searching_first(alias, schema)
    return contextlib.nullcontext()


def _login() -> Iterator[str]:
    password = secrets.token_urlsafe(24)
    user = _make(password)
    try:
        request = RequestFactory().post("/")
        found = _authenticated(request, user, password)
        if found is None:
            yield _("no authentication back end lets a new user in with the right password")
            return
        client = Client()
        client.force_login(found, backend=found.backend)
        request.session = client.session
        if auth.get_user(request).pk != user.pk:
            yield _("the session of a user who has logged in does not name that user")
    finally:
        user.delete()


def _crud() -> Iterator[str]:
    users: Any = auth.get_user_model()._base_manager
    before = users.count()
    user = _make(secrets.token_urlsafe(24))
    read = users.filter(pk=user.pk).first()
    if read is None or read.get_username() != user.get_username():
        yield _("a user who was created cannot be read")
        return
    changed = secrets.token_urlsafe(24)
    read.set_password(changed)
    read.save()
    if not users.get(pk=user.pk).check_password(changed):
        yield _("a change of a user is not kept")
    read.delete()
    if users.filter(pk=user.pk).exists() or users.count() != before:
        yield _("a user who was deleted is still there")


def _authenticated(request: Any, user: Any, password: str) -> Any:
    """Ask the back ends in each of the ways in which they may want to be told who it is."""
    names = dict.fromkeys(("username", user.USERNAME_FIELD, "email"))
    for name in names:
        found = auth.authenticate(request, **{name: user.get_username(), "password": password})
        if found is not None:
            return found
    return None


def _make(password: str) -> Any:
    model = auth.get_user_model()
    token = secrets.token_hex(4)
    user: Any = model(**_values(model, token))
    user.set_password(password)
    user.save()
    return user


def _values(model: Any, token: str) -> Mapping[str, Any]:
    """Return values for the fields that a user cannot do without."""
    wanted = {model.USERNAME_FIELD, *model.REQUIRED_FIELDS}
    return {
        field.name: _value(field, token)
        for field in model._meta.concrete_fields
        if field.name in wanted or _is_needed(field)
    }


def _is_needed(field: Any) -> bool:
    if field.primary_key or field.has_default() or field.null or field.name == "password":
        return False
    if field.remote_field is not None and field.remote_field.parent_link:
        return False
    return field.unique or not isinstance(field, models.CharField | models.TextField)


def _value(field: Any, token: str) -> Any:
    if field.is_relation:
        return field.related_model._base_manager.first()
    for kind, value in (
        (models.EmailField, f"{NAME}-{token}@example.com"),
        (models.CharField | models.TextField, f"{NAME}-{token}"),
        (models.BooleanField, False),
        (models.DateTimeField, timezone.now()),
        (models.DateField, date.today()),  # noqa: DTZ011 - any day does
        (models.UUIDField, uuid.uuid4()),
        (models.JSONField, {}),
        (models.IntegerField, secrets.randbelow(30_000) + 1),
    ):
        if isinstance(field, kind):
            # From its end: of a short field the random part must be left.
            return (
                value[-field.max_length :] if isinstance(value, str) and field.max_length else value
            )
    return 0
