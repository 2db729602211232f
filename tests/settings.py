"""Settings of the tests; nothing is made or read at import."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

# One folder for each process, so that several runs on one machine never meet; `conftest.py`
# makes it before the first test and removes it after the last.
WORK_DIR = Path(tempfile.gettempdir()) / f"mipyme_backup_tests_{os.getpid()}"
BASE_DIR = WORK_DIR

SECRET_KEY = "for tests only"
USE_TZ = True
TIME_ZONE = "Europe/Madrid"  # with daylight saving, so that a mix-up with UTC shows
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
MEDIA_ROOT = str(WORK_DIR / "media")
MEDIA_URL = "media/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "mipyme_backup",
]
if importlib.util.find_spec("tests.zoo"):
    INSTALLED_APPS.append("tests.zoo")

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": WORK_DIR / "db.sqlite3",
        # A file as well: what reads a database from outside cannot see one in memory.
        "TEST": {"NAME": WORK_DIR / "test_db.sqlite3"},
    }
}

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast; guards nothing here
