"""What monitoring asks: ``path("backups/", include("mipyme_backup.urls"))`` in a project's URLs."""

from __future__ import annotations

from django.urls import path

from mipyme_backup import views

app_name = "mipyme_backup"
urlpatterns = [
    path("health", views.health, name="health"),
    path("metrics", views.metrics, name="metrics"),
]
