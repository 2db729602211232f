"""Visits to this app's pages in the admin of a project, as its superuser."""

from __future__ import annotations

from django.apps import apps
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse


def statuses() -> dict[str, int]:
    """Return the status of the page of each list, and of each object in it, by its address."""
    client = Client(SERVER_NAME="localhost")
    client.force_login(get_user_model().objects.filter(is_superuser=True)[0])
    addresses = [reverse("admin:index"), reverse("admin:app_list", args=["mipyme_backup"])]
    for model in apps.get_app_config("mipyme_backup").get_models(include_auto_created=True):
        if admin.site.is_registered(model):
            name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
            addresses.append(reverse(f"{name}_changelist"))
            if not model._meta.proxy:
                rows = model._default_manager.values_list("pk", flat=True)
                addresses += [reverse(f"{name}_change", args=[key]) for key in rows]
    return {address: client.get(address).status_code for address in addresses}
