"""Settings of the example shop; whatever differs between machines comes from the environment.

DJANGO_SECRET_KEY              needed where more than one process serves the site
DJANGO_SECRET_KEY_FILE         the same, from a file
DJANGO_DEBUG                   1 turns it on
DJANGO_ALLOWED_HOSTS           names, by commas
DJANGO_CSRF_TRUSTED_ORIGINS    origins, by commas
DJANGO_HTTPS                   0 for a trial without TLS: cookies then travel in the clear
DJANGO_HSTS_SECONDS            seconds for which browsers insist on HTTPS (3600 at first)
DJANGO_LANGUAGE_CODE           es-ar
DATABASE_URL                   SQLite beside this project, when not given
DATABASE_PASSWORD_FILE         the database's password, when not in the URL
DATABASE_BACKUP_USER           the role that backs up, when it is not the site's
DATABASE_BACKUP_PASSWORD_FILE  its password
DATABASE_RESTORE_USER          the role that restores, when it is not the one above
DATABASE_RESTORE_PASSWORD_FILE its password
MEDIA_ROOT, STATIC_ROOT        folders
BACKUP_DIR                     the folder of the local backups
STATE_DIR                      what this host remembers of its runs, never among the backups
BACKUP_PASSPHRASE_FILE         one line, in a file of mode 0600
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from django.core.management.utils import get_random_secret_key

from config.database_url import database_from_url

BASE_DIR = Path(__file__).resolve().parent.parent


def _path(name: str, default: str) -> Path:
    return Path(os.environ.get(name) or BASE_DIR / default).absolute()


def _words(name: str, default: str = "") -> list[str]:
    return [word for word in os.environ.get(name, default).split(",") if word]


def _secret(name: str) -> str:
    file = os.environ.get(f"{name}_FILE")
    return Path(file).read_text().strip() if file else os.environ.get(name, "")


def _role(name: str) -> dict[str, dict[str, str]]:
    """Return what differs from DATABASES for a role of its own; nothing where there is none."""
    user = os.environ.get(f"DATABASE_{name}_USER")
    if not user:
        return {}
    return {"default": {"USER": user, "PASSWORD": _secret(f"DATABASE_{name}_PASSWORD")}}


# Without a key of its own a process makes one up: sessions then end when it does.
SECRET_KEY = _secret("DJANGO_SECRET_KEY") or get_random_secret_key()
DEBUG = os.environ.get("DJANGO_DEBUG") == "1"
ALLOWED_HOSTS = _words("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = _words("DJANGO_CSRF_TRUSTED_ORIGINS")

HTTPS = not DEBUG and os.environ.get("DJANGO_HTTPS") != "0"
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
if HTTPS:
    # Only true where clients cannot reach this process but through the proxy that sets it.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = int(os.environ.get("DJANGO_HSTS_SECONDS") or 3600)
# These would bind the other sites of the domain, which a shop cannot decide.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "mipyme_backup",
    "shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {
    "default": database_from_url(
        os.environ.get("DATABASE_URL") or f"sqlite:///{quote(str(BASE_DIR / 'shop.sqlite3'))}",
        password=_secret("DATABASE_PASSWORD"),
    )
}

LANGUAGE_CODE = os.environ.get("DJANGO_LANGUAGE_CODE", "es-ar")
LANGUAGES = [("es-ar", "Español"), ("en", "English")]
TIME_ZONE = "America/Argentina/Buenos_Aires"

MEDIA_ROOT = _path("MEDIA_ROOT", "media")
MEDIA_URL = "/media/"
STATIC_ROOT = _path("STATIC_ROOT", "static")
STATIC_URL = "/static/"

MIPYME_BACKUP = {
    "PROJECT": "example_shop",
    "STATE_DIR": _path("STATE_DIR", ".mipyme_backup"),
    "SOURCES": {
        "database": {
            "BACKEND": "mipyme_backup.sources.DatabaseSource",
            "OPTIONS": {"connections": _role("BACKUP"), "restore_connections": _role("RESTORE")},
        },
        "fixtures": {"BACKEND": "mipyme_backup.sources.FixturesSource"},
        "media": {"BACKEND": "mipyme_backup.sources.MediaSource"},
    },
    "DESTINATIONS": {
        "local": {
            "BACKEND": "mipyme_backup.destinations.LocalDestination",
            "OPTIONS": {"location": _path("BACKUP_DIR", "backups")},
        },
    },
    "ENCRYPTION": {
        "BACKEND": "mipyme_backup.encryption.GPG",
        "OPTIONS": {"passphrase_file": _path("BACKUP_PASSPHRASE_FILE", "backup.passphrase")},
    },
}
