"""The shop's pages and its admin."""

from __future__ import annotations

from django.conf import settings
from django.conf.urls.static import static
from django.contrib import admin
from django.urls import path
from shop.views import front_page

urlpatterns = [
    path("", front_page, name="front_page"),
    path("admin/", admin.site.urls),
    # Only with DEBUG; in production the web server in front serves the files.
    *static(settings.MEDIA_URL, document_root=settings.MEDIA_ROOT),
]
