"""Whole backups to S3 while the network fails: no false success, nothing lost, nothing left over.

Each round a fault strikes at a random byte of a run's traffic. What the run reports as complete
is then read again, directly from the server; the run after it completes what is missing.
"""

from __future__ import annotations

import json
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import services
from tests.e2e.project import Project, sqlite_project
from tests.proxy import Action, Fault, Proxy, proxy

ROUNDS = 3
SERIES = 12
ROUNDS_OF_A_SERIES = 5
ROUND_SECONDS = 240
LARGE = 2**24 + 100_000
"""Bytes of a file that makes a pack of more than one part."""

ACTIONS: tuple[Action, ...] = ("cut", "reset", "stall", "trickle")
ANSWERS = {"InternalError": 500, "SlowDown": 503, "TooManyRequests": 429, "AccessDenied": 403}
STORAGES = """
import os
from botocore.config import Config

STORAGES = {{
    "default": {{"BACKEND": "django.core.files.storage.FileSystemStorage"}},
    "staticfiles": {{"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}},
    "far": {{
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {{
            **{options!r},
            "endpoint_url": os.environ.get("S3_URL", {url!r}),
            "client_config": Config(
                s3={{"addressing_style": "path"}},
                connect_timeout=3,
                read_timeout=3,
                retries={{"total_max_attempts": 2}},
            ),
        }},
    }},
}}
"""
Tell = Callable[[str], None]


class Site:
    """A project whose way to S3 leads through a proxy, with one good backup on both sides."""

    def __init__(self, project: Project, server: services.S3Server, between: Proxy) -> None:
        self.project = project
        self.between = between
        self._server = server
        self._client = server.client()
        with (project.root / "config" / "settings.py").open("a") as settings:
            url = f"http://127.0.0.1:{between.port}"
            settings.write(STORAGES.format(options=server.options(), url=url))
        project.populate()
        self.first: str = project.backup()["id"]
        self._change()
        between.plan()
        assert project.backup()["status"] == "complete"
        self._passed = dict(between.passed)

    def disturbed(self, rng: random.Random) -> tuple[Fault, dict[str, Any]]:
        """Take a backup that a fault strikes; return the fault, and what the run reported."""
        self._change()
        fault = self._fault(rng)
        self.between.plan(fault)
        result = self.project.manage("backup", "--json", check=False)
        self.between.plan()
        assert result.returncode in {0, 3}, f"{fault} {result.stdout} {result.stderr}"
        report: dict[str, Any] = json.loads(result.stdout)
        return fault, report

    def verified(self, *ids: str) -> dict[tuple[str, str], list[str]]:
        """Return the problems of each copy of these backups, read directly from the server."""
        result = self.project.manage(
            "verify_backups", *ids, "--json", check=False, env={"S3_URL": self._server.url}
        )
        rows = json.loads(result.stdout)
        return {(row["id"], row["destination"]): row["problems"] for row in rows}

    def unfinished_uploads(self) -> list[str]:
        uploads = self._client.list_multipart_uploads(Bucket=self._server.bucket)
        return [upload["Key"] for upload in uploads.get("Uploads", [])]

    def _change(self) -> None:
        (self.project.media / "large").write_bytes(secrets.token_bytes(LARGE))

    def _fault(self, rng: random.Random) -> Fault:
        action = rng.choice([*ACTIONS, "answer"])
        way = "up" if action == "answer" else rng.choice(["up", "down"])
        times = 1 if action == "trickle" else rng.choice([1, 4, 10**6])
        code = rng.choice([*ANSWERS])
        return Fault(
            action=action,
            way=way,  # type: ignore[arg-type]
            after=rng.randrange(self._passed[way]),  # type: ignore[index]
            request="^(GET|HEAD|PUT|POST|DELETE) " if action == "answer" else "",
            status=ANSWERS[code],
            code=code,
            times=times,
        )


@pytest.fixture
def site(workdir: Path) -> Iterator[Site]:
    far = {
        "BACKEND": "mipyme_backup.destinations.StorageDestination",
        "OPTIONS": {"storage": "far"},
        "RETRY_FOR": 8,
    }
    local = {
        "BACKEND": "mipyme_backup.destinations.LocalDestination",
        "OPTIONS": {"location": str(workdir / "site" / "backups")},
    }
    with services.moto_s3() as server, proxy(server.port) as between:
        with sqlite_project(workdir, DESTINATIONS={"local": local, "far": far}) as project:
            yield Site(project, server, between)


def assert_nothing_is_lost(site: Site, rounds: int, rng: random.Random, tell: Tell) -> None:
    seen: Counter[str] = Counter()
    for _round in range(rounds):
        fault, report = site.disturbed(rng)
        said = {copy["destination"]: copy["status"] for copy in report["copies"]}
        found = site.verified(site.first, report["id"])
        seen[f"{fault.action}: {said['far']}"] += 1
        seen["struck"] += fault.happened > 0

        good = {name for (backup, name), problems in found.items() if not problems and backup}
        assert said["local"] == "complete" and "local" in good
        assert found[site.first, "far"] == found[site.first, "local"] == [], fault
        if said["far"] == "complete":
            assert found[report["id"], "far"] == [], fault
        else:
            assert report["status"] == "partial"
            assert not found.get((report["id"], "far")), f"a damaged copy was left by {fault}"

        after = site.project.backup()

        assert after["status"] == "complete", fault
        found = site.verified(site.first, report["id"], after["id"])
        copies = [
            (backup, name)
            for backup in (site.first, report["id"], after["id"])
            for name in ("local", "far")
        ]
        assert found == {copy: [] for copy in copies}, fault
        assert site.unfinished_uploads() == [], fault
    tell(f"{rounds} rounds: {dict(sorted(seen.items()))}")


@pytest.mark.timeout(ROUNDS * ROUND_SECONDS)
@pytest.mark.rare
def test_backup_through_faults_loses_nothing(
    site: Site, torture_random: random.Random, tell: Tell
) -> None:
    assert_nothing_is_lost(site, ROUNDS, torture_random, tell)


@pytest.mark.torture
@pytest.mark.timeout(ROUNDS_OF_A_SERIES * ROUND_SECONDS)
@pytest.mark.parametrize("series", range(SERIES))
def test_every_backup_through_faults_loses_nothing(
    site: Site,
    series: int,
    torture_random: random.Random,
    tell: Tell,
    scaled: Callable[[int, int], int],
) -> None:
    assert_nothing_is_lost(site, scaled(ROUNDS_OF_A_SERIES, 1), torture_random, tell)
