from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, _state

from mipyme_backup.drills.job import Database, Files, Job
from mipyme_backup.drills.overrides import UNREACHABLE, apply, check, overrides

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


def restored(alias: str) -> Files:
    return Files(aliases={alias: ""}, folder="/state/media", hashes="/state/hashes")


def job(**values: Any) -> Job:
    return Job(
        **{
            "settings": "config.settings",
            "databases": {"default": DRILLED},
            "folder": "/state/work",
            "files": [restored("default")],
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
    changed = overrides(LIVE, job(files=[restored("private")]))

    assert changed["STORAGES"]["private"]["OPTIONS"] == {"location": "/state/media"}
    assert changed["STORAGES"]["default"]["OPTIONS"] == {"location": "/state/work/storages/default"}
    assert changed["MEDIA_ROOT"] == "/state/work/storages/default"


def test_backup_without_media_leaves_no_live_folder() -> None:
    changed = overrides({}, job(files=[]))

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


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a settings module, on the path of this process for a test."""
    folder = tmp_path / "drilled_shop"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "settings.py").write_text(
        "\n".join(f"{name} = {value!r}" for name, value in LIVE.items()) + "\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    # An app that is made becomes the current one, or the default, for the whole process.
    state: Any = _state
    monkeypatch.setattr(state, "default_app", state.default_app)
    monkeypatch.setattr(state._tls, "current_app", state._tls.current_app)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


@pytest.mark.parametrize("end", ["broker_read_url", "broker_write_url", "result_backend"])
@pytest.mark.parametrize("place", ["settings", "environment"])
def test_celery_reaches_no_live_broker(end: str, place: str, shop: Path) -> None:
    name, url = f"CELERY_{end.upper()}", "redis://live.example.com/0"
    if place == "environment":
        os.environ[name] = url
    else:
        with (shop / "settings.py").open("a") as file:
            file.write(f"{name} = {url!r}\n")

    apply(job(settings="drilled_shop.settings"))
    app = Celery("shop")
    app.config_from_object("drilled_shop.settings", namespace="CELERY")

    assert "memory://" in getattr(app.conf, end)


def test_who_reads_the_settings_first_sees_those_of_the_drill(shop: Path) -> None:
    early = "from drilled_shop import settings\n\nSEEN = settings.DATABASES, settings.MEDIA_ROOT\n"
    (shop / "__init__.py").write_text(early)
    finders = [*sys.meta_path]

    apply(job(settings="drilled_shop.settings"))

    databases, media = importlib.import_module("drilled_shop").SEEN
    assert databases["default"]["NAME"] == "shop__drill_1" and media == "/state/media"
    assert databases["reports"] == UNREACHABLE
    assert sys.meta_path == finders


def test_any_database_but_those_of_the_drill_is_refused() -> None:
    drilled = overrides(LIVE, job())["DATABASES"]
    check(job(), drilled)

    for alias in ("default", "reports", "another"):
        live = LIVE["DATABASES"].get(alias, LIVE["DATABASES"]["default"])
        with pytest.raises(RuntimeError, match=f"the database '{alias}'"):
            check(job(), {**drilled, alias: live})


@pytest.mark.parametrize("package", ["django_tasks", None])
def test_tasks_are_those_of_what_is_installed(
    package: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Django 6.0 there is django-tasks, which reads the same setting, or nothing."""
    if find_spec("django.tasks"):
        pytest.skip("this Django has tasks of its own")
    if package:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path)

    made = overrides({"TASKS": {"slow": {"BACKEND": "shop.Tasks"}}}, job())

    backend = {"BACKEND": f"{package}.backends.dummy.DummyBackend"}
    expected = {"default": backend, "slow": backend} if package else None
    assert made.get("TASKS") == expected
