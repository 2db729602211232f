from __future__ import annotations

from typing import Any

from mipyme_backup.drills.job import Database, Job
from mipyme_backup.drills.overrides import UNREACHABLE, overrides

FILES = "django.core.files.storage.FileSystemStorage"
LIVE: dict[str, Any] = {
    "DATABASES": {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "shop",
            "HOST": "live.example.com",
            "PASSWORD": "secret",
            "OPTIONS": {"pool": True, "sslmode": "require"},
        },
        "reports": {"ENGINE": "django.db.backends.mysql", "NAME": "reports"},
    },
    "INSTALLED_APPS": ["django.contrib.sessions", "shop"],
    "CACHES": {"default": {"BACKEND": "redis"}, "pages": {"BACKEND": "redis"}},
    "STORAGES": {
        "default": {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": {"bucket": "live"}},
        "private": {"BACKEND": FILES, "OPTIONS": {"location": "/srv/private"}},
        "staticfiles": {"BACKEND": "manifest"},
    },
    "MEDIA_ROOT": "/srv/media",
    "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
}
DRILLED = Database(
    values={"NAME": "shop__drill_1"}, options={"connect_timeout": 5}, without_options=["pool"]
)


def job(**values: Any) -> Job:
    return Job(
        **{
            "settings": "config.settings",
            "databases": {"default": DRILLED},
            "folder": "/state/work",
            "media_storage": "default",
            "media_folder": "/state/media",
            "hashes": "/state/hashes",
            **values,
        }
    )


def test_database_is_the_throwaway_one_by_the_same_way_in() -> None:
    changed = overrides(LIVE, job())["DATABASES"]

    assert changed["default"] == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "shop__drill_1",
        "HOST": "live.example.com",
        "PASSWORD": "secret",
        "OPTIONS": {"sslmode": "require", "connect_timeout": 5},
    }
    assert changed["reports"] == UNREACHABLE
    assert LIVE["DATABASES"]["default"]["OPTIONS"]["pool"] is True


def test_no_storage_is_a_live_one() -> None:
    changed = overrides(LIVE, job())

    assert changed["MEDIA_ROOT"] == "/state/media"
    assert changed["STORAGES"] == {
        "default": {"BACKEND": FILES, "OPTIONS": {"location": "/state/media"}},
        "private": {"BACKEND": FILES, "OPTIONS": {"location": "/state/work/storages/private"}},
        "staticfiles": {"BACKEND": "manifest"},
    }


def test_media_of_another_storage_than_the_default_one() -> None:
    changed = overrides(LIVE, job(media_storage="private"))

    assert changed["STORAGES"]["private"]["OPTIONS"] == {"location": "/state/media"}
    assert changed["STORAGES"]["default"]["OPTIONS"] == {"location": "/state/work/storages/default"}
    assert changed["MEDIA_ROOT"] == "/state/work/storages/default"


def test_backup_without_media_leaves_no_live_folder() -> None:
    changed = overrides({}, job(media_storage=None, media_folder=None, hashes=None))

    assert changed["MEDIA_ROOT"] == "/state/work/storages/default"
    assert changed["STORAGES"]["default"] == {
        "BACKEND": FILES,
        "OPTIONS": {"location": "/state/work/storages/default"},
    }


def test_caches_mail_queues_and_sessions_are_nobody_elses() -> None:
    changed = overrides(LIVE, job())

    assert {entry["BACKEND"].rpartition(".")[2] for entry in changed["CACHES"].values()} == {
        "LocMemCache"
    }
    assert changed["CACHES"].keys() == {"default", "pages"}
    assert changed["EMAIL_BACKEND"].endswith("locmem.EmailBackend")
    assert changed["SESSION_ENGINE"] == "django.contrib.sessions.backends.db"
    assert changed["CELERY_BROKER_URL"] == "memory://"
    assert overrides({}, job())["SESSION_ENGINE"].endswith("signed_cookies")
