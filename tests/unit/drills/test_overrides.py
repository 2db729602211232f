from __future__ import annotations

import os
import sys
import types
from typing import Any

import pytest
from celery import Celery

from mipyme_backup.drills.job import Database, Job
from mipyme_backup.drills.overrides import UNREACHABLE, apply, overrides

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
    "CHANNEL_LAYERS": {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}},
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
    layers = changed["CHANNEL_LAYERS"]
    assert layers == {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    assert overrides({}, job())["SESSION_ENGINE"].endswith("signed_cookies")


@pytest.mark.parametrize("end", ["broker_read_url", "broker_write_url", "result_backend"])
@pytest.mark.parametrize("place", ["settings", "environment"])
def test_celery_reaches_no_live_broker(
    end: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, live = f"CELERY_{end.upper()}", "redis://live.example.com/0"
    module = types.ModuleType("drilled_settings")
    vars(module).update(LIVE, **({name: live} if place == "settings" else {}))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    if place == "environment":
        os.environ[name] = live

    apply(job(settings=module.__name__))
    app = Celery("shop")
    app.config_from_object(module, namespace="CELERY")

    assert "memory://" in getattr(app.conf, end)
