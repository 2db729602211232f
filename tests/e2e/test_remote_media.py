"""A project whose media lives on S3: saved, lost with all the rest, and brought back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests import services
from tests.e2e.project import Project, sqlite_project

SETTINGS = """
STORAGES = {{
    "default": {{"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": {options!r}}},
    "staticfiles": {{"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}},
}}
"""


def test_media_on_s3_is_saved_lost_and_brought_back(tmp_path: Path) -> None:
    with services.s3() as server, sqlite_project(tmp_path) as project:
        with (project.root / "config" / "settings.py").open("a") as file:
            file.write(SETTINGS.format(options=server.options(location="media")))
        project.manage("migrate", "--verbosity=0")
        project.manage("populate_zoo", "--seed=1")
        put(server, {f"photos/{number}.jpg": b"%d" % number * 999 for number in range(8)})
        put(server, {"large": b"0123456789" * 300_000, "empty": b""})
        saved = hashes(server)
        first = project.backup()
        put(server, {"new.jpg": b"new", "photos/1.jpg": b"changed"})
        rows, objects = rows_of(project), hashes(server)

        second = project.backup()

        assert facts(project, first)["new_files"] == len(set(saved.values()))
        assert facts(project, second)["new_files"] == 2
        assert facts(project, second)["files"] == len(saved) + 1

        lose_all(server, project)
        assert "file by file" in " ".join(project.restore("--latest")["plan"])
        assert rows_of(project) == rows
        assert hashes(server) == objects

        put(server, {"photos/2.jpg": b"later", "late.jpg": b"late"})
        project.execute("DELETE FROM zoo_transfer")
        later_rows, later_objects = rows_of(project), hashes(server)
        project.restore(second["id"])
        assert rows_of(project) == rows
        assert hashes(server) == objects

        project.restore("--undo")
        assert rows_of(project) == later_rows
        assert hashes(server) == later_objects

        project.restore("--latest", "--to-media", str(tmp_path / "look"))
        in_folder = {
            str(path.relative_to(tmp_path / "look")): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (tmp_path / "look").rglob("*")
            if path.is_file()
        }
        assert in_folder == objects


def rows_of(project: Project) -> list[tuple[Any, ...]]:
    return project.execute("SELECT * FROM zoo_transfer ORDER BY id")


def put(server: services.S3Server, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        server.client().put_object(Bucket=server.bucket, Key=f"media/{name}", Body=content)


def hashes(server: services.S3Server) -> dict[str, str]:
    """Return the hash of each live object."""
    client = server.client()
    return {
        name: hashlib.sha256(
            client.get_object(Bucket=server.bucket, Key=f"media/{name}")["Body"].read()
        ).hexdigest()
        for name in names(server)
        if not name.startswith(".mipyme_backup_")
    }


def names(server: services.S3Server) -> list[str]:
    pages = server.client().get_paginator("list_objects_v2")
    return [
        found["Key"].removeprefix("media/")
        for page in pages.paginate(Bucket=server.bucket, Prefix="media/")
        for found in page.get("Contents", ())
    ]


def lose_all(server: services.S3Server, project: Project) -> None:
    for name in names(server):
        server.client().delete_object(Bucket=server.bucket, Key=f"media/{name}")
    project.destroy()


def facts(project: Project, report: dict[str, Any]) -> dict[str, Any]:
    """Return what the manifest of a backup says about its media."""
    manifest = json.loads((project.backups / report["name"] / "manifest.json").read_bytes())
    (media,) = [source for source in manifest["sources"] if source["name"] == "media"]
    found: dict[str, Any] = next(iter(media["facts"].values()))
    return found
