from __future__ import annotations

from django.apps import AppConfig


class ZooPostgreSQLConfig(AppConfig):
    name = "tests.zoo_postgresql"
    label = "zoo_postgresql"
    default_auto_field = "django.db.models.BigAutoField"
