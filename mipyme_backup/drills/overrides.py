"""Puts throwaway places into the project's settings, before Django reads them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from mipyme_backup.drills.job import Database, Job

UNREACHABLE = {"ENGINE": "django.db.backends.dummy"}
FILES = "django.core.files.storage.FileSystemStorage"
MEMORY = "memory://"
RESULTS = "cache+memory://"
CELERY = {
    "CELERY_BROKER_URL": MEMORY,
    "CELERY_BROKER_READ_URL": MEMORY,
    "CELERY_BROKER_WRITE_URL": MEMORY,
    "CELERY_RESULT_BACKEND": RESULTS,
}
"""As settings, and as variables of the environment: of those Celery makes more."""


def apply(job: Job) -> None:
    """Import the settings module, changed in place before anybody sees what it holds.

    The package that it lies in may read the settings already while it is imported itself: a
    Celery app that is made there does. Its own name stays ``DJANGO_SETTINGS_MODULE``: defaults
    are derived from that.
    """
    os.environ["DJANGO_SETTINGS_MODULE"] = job.settings
    os.environ.update(CELERY)
    sys.meta_path.insert(0, _Changing(job))
    importlib.import_module(job.settings)


class _Changing(MetaPathFinder):
    """Finds the settings module alone, once, and changes it at the end of its own code."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._job.settings:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def changed(module: ModuleType) -> None:
                execute(module)
                for name, value in overrides(vars(module), self._job).items():
                    setattr(module, name, value)

            spec.loader.exec_module = changed  # type: ignore[method-assign]
        return spec


def check(job: Job, databases: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise RuntimeError unless `databases`, those that Django will use, are the drill's own."""
    for alias, entry in databases.items():
        wanted = job.databases.get(alias)
        values = UNREACHABLE if wanted is None else wanted.values
        if any(entry.get(name) != value for name, value in values.items()):
            raise RuntimeError(
                f"the project has set the database {alias!r} to another one than the drill's,"
                " so nothing was tried"
            )


def replace_field_storages(job: Job) -> None:
    """Give each file field that has a storage of its own the folder that was restored of it.

    One of which nothing was restored gets an empty folder, for its own is a live one.
    """
    from django.apps import apps
    from django.core.files.storage import FileSystemStorage

    from mipyme_backup.sources.file_fields import file_fields, storage_behind
    from mipyme_backup.sources.media.storages import configured_storages, label_of

    folders = {
        label: files.folder_of(prefix)
        for files in job.files
        for label, prefix in files.fields.items()
    }
    configured = configured_storages().values()
    for model in apps.get_models(include_auto_created=True):
        for found in file_fields(model):
            if not any(storage_behind(found.storage) is storage for storage in configured):
                label = label_of(found)
                empty = str(Path(job.folder) / "storages" / label)
                found.storage = FileSystemStorage(location=folders.get(label, empty))


def overrides(settings: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """Return the settings of a drill that differ from the project's own `settings`.

    Its databases, files, caches, sessions, mail and queues are nobody else's.
    """
    folders = Path(job.folder) / "storages"
    restored = {
        alias: files.folder_of(inner)
        for files in job.files
        for alias, inner in files.aliases.items()
    }
    installed = settings.get("INSTALLED_APPS", ())
    sessions = "db" if "django.contrib.sessions" in installed else "signed_cookies"
    return {
        "DATABASES": {
            alias: database(entry, job.databases.get(alias))
            for alias, entry in settings.get("DATABASES", {}).items()
        },
        "MEDIA_ROOT": restored.get("default", str(folders / "default")),
        "STORAGES": _storages(settings, restored, folders),
        "CACHES": {
            alias: {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": alias}
            for alias in {"default": None, **settings.get("CACHES", {})}
        },
        "SESSION_ENGINE": f"django.contrib.sessions.backends.{sessions}",
        "EMAIL_BACKEND": "django.core.mail.backends.locmem.EmailBackend",
        **_tasks(settings),
        "CHANNEL_LAYERS": {
            alias: {"BACKEND": "channels.layers.InMemoryChannelLayer"}
            for alias in settings.get("CHANNEL_LAYERS", {})
        },
        **CELERY,
    }


def _tasks(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return back ends that run no task: Django's, or before 6.0 those of django-tasks."""
    for package in ("django.tasks", "django_tasks"):
        if find_spec(package) is not None:
            backend = f"{package}.backends.dummy.DummyBackend"
            aliases = {"default": None, **settings.get("TASKS", {})}
            return {"TASKS": {alias: {"BACKEND": backend} for alias in aliases}}
    return {}


def database(entry: Mapping[str, Any], drilled: Database | None) -> dict[str, Any]:
    """Return the ``DATABASES`` entry of a drill; of None, one that nothing can be read from."""
    if drilled is None:
        return dict(UNREACHABLE)
    options = {
        name: value
        for name, value in entry.get("OPTIONS", {}).items()
        if name not in drilled.without_options
    }
    return {**entry, **drilled.values, "OPTIONS": {**options, **drilled.options}}


def _storages(
    settings: Mapping[str, Any], restored: Mapping[str, str], folders: Path
) -> dict[str, Any]:
    """Give every storage a folder of its own, save the static files, which are only read."""
    static = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    given = {"default": {}, "staticfiles": static, **settings.get("STORAGES", {})}
    places = {alias: str(folders / alias) for alias in given if alias != "staticfiles"}
    places |= restored
    return {
        **given,
        **{
            alias: {"BACKEND": FILES, "OPTIONS": {"location": place}}
            for alias, place in places.items()
        },
    }
