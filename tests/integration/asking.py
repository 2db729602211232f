"""Asking for tasks in the admin: what the tests of that share."""

from __future__ import annotations

from typing import Any

import celery
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from mipyme_backup import api
from mipyme_backup.models import Backup, Task

ASK = "/admin/mipyme_backup/backuphealth/ask/"
PASSWORD = "a password of hers"
REASON = "The price list was deleted by mistake."


def planned(client: Client) -> Task:
    ask(client, "plan")
    assert run_newest() == "complete"
    return Task.objects.get(verb="plan")


def filled(task: Task) -> dict[str, str]:
    return {"name": task.backup_name, "reason": REASON, "password": PASSWORD}


def ask(client: Client, verb: str, *, destination: str = "local", follow: bool = False) -> Any:
    if verb == "backup":
        return client.post(ASK, {"verb": verb}, follow=follow)
    backup = Backup.objects.exclude(kind="safety").first()
    assert backup is not None
    address = reverse("admin:mipyme_backup_backup_ask", args=[backup.pk])
    sent = {"complete": destination} if verb == "complete" else {"verb": verb}
    return client.post(address, sent, follow=follow)


def run_newest(verb: str | None = None) -> str | None:
    """Do the newest task, as the worker that its message reaches does."""
    tasks = Task.objects.filter(verb=verb) if verb else Task.objects.all()
    task = tasks.first()
    assert task is not None
    return api.run_task(task_id=task.task_id)


def messages(app: celery.Celery) -> list[Any]:
    found = []
    with app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
        while queue.qsize():
            found.append(queue.get(block=False))
            found[-1].ack()
    return found


def page_of(task: Task | None) -> str:
    assert task is not None
    return reverse("admin:mipyme_backup_task_change", args=[task.task_id])


def progress_of(task: Task) -> str:
    return reverse("admin:mipyme_backup_task_progress", args=[task.task_id])


def restore_page(task: Task) -> str:
    return reverse("admin:mipyme_backup_task_restore", args=[task.task_id])


def backup_page() -> str:
    backup = Backup.objects.exclude(kind="safety").first()
    assert backup is not None
    return reverse("admin:mipyme_backup_backup_change", args=[backup.pk])


def staff(*permissions: str) -> Client:
    user, _created = User.objects.get_or_create(
        username="-".join(permissions)[:150] or "staff", is_staff=True
    )
    user.set_unusable_password()
    user.save()
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return logged_in(user)


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def text_of(page: Any) -> str:
    return str(page.content.decode())
