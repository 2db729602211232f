"""A process inside a throwaway project that answers by the product's Python API.

Run as a module in the project's folder: each line of stdin is ``[question, arguments]``, each
line of stdout the answer. It saves a trial of a thousand questions a thousand starts of Django.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.project import REPOSITORY, Project
from tests.fingerprint import MediaEntry

Content = tuple[dict[str, str], dict[bytes, MediaEntry]]


@dataclass(frozen=True)
class Refused(Exception):  # noqa: N818 - what the product answers, and no fault of the tests
    """The API raised one of its own errors."""

    code: str
    exit_status: int
    message: str

    def __str__(self) -> str:
        return f"{self.code} ({self.exit_status}): {self.message}"


class Inspector:
    """Asks the process of one project; everything else that it raises is an AssertionError."""

    def __init__(self, project: Project, process: subprocess.Popen[str]) -> None:
        self._project = project
        self._process = process

    def content(self) -> Content:
        """Return what is live: the database and the media."""
        return self._ask("fingerprint"), self._project.media_fingerprint()

    def backups(self, destination: str | None = None) -> list[dict[str, Any]]:
        """Return the rows of the catalog, or what a destination itself holds."""
        rows: list[dict[str, Any]] = self._ask("backups", destination=destination)
        return rows

    def restores(self) -> dict[str, str]:
        """Return the status of each restore in the catalog, by its id."""
        statuses: dict[str, str] = self._ask("restores")
        return statuses

    def verify(self, identifiers: Sequence[str] = (), level: str = "stored") -> list[str]:
        """Return the problems of the named backups, or of all; raises Refused."""
        results = self._ask("verify", identifiers=list(identifiers), level=level)
        return [f"{r['name']}: {problem}" for r in results for problem in r["problems"]]

    def restore(self, identifier: str, **options: Any) -> None:
        """Restore, or with ``plan=True`` say how; raises Refused."""
        self._ask("restore", identifier=identifier, **options)

    def _ask(self, question: str, **arguments: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(f"{json.dumps([question, arguments])}\n")
        stdin.flush()
        line = stdout.readline()
        assert line, f"the inspector ended with {self._process.wait()}"
        answer = json.loads(line)
        if "refused" in answer:
            raise Refused(*answer["refused"])
        assert "crash" not in answer, answer["crash"]
        return answer["result"]


@contextlib.contextmanager
def inspecting(project: Project) -> Iterator[Inspector]:
    """Yield an inspector of `project`; its process ends with the block."""
    environment = {
        **project.environment(),
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{project.root}",
    }
    with (project.root / "inspector.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=project.root,
            env=environment,
        )
    try:
        yield Inspector(project, process)
    finally:
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _questions() -> dict[str, Callable[..., Any]]:
    from django.db import connection

    from mipyme_backup import api
    from mipyme_backup.models import Restore
    from tests.fingerprint import fingerprint

    return {
        "fingerprint": lambda: fingerprint(connection),
        "backups": lambda **kwargs: [item.to_dict() for item in api.backups(**kwargs)],
        "restores": lambda: dict(Restore.objects.values_list("restore_id", "status")),
        "verify": lambda **kwargs: [item.to_dict() for item in api.verify(**kwargs)],
        "restore": lambda **kwargs: api.restore(**kwargs).to_dict(),
    }


def _answer(question: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    from django.db import connections

    from mipyme_backup.errors import BackupError

    try:
        return {"result": question(**arguments)}
    except BackupError as error:
        return {"refused": [error.code, error.exit_status, str(error)]}
    except Exception:
        return {"crash": traceback.format_exc()}
    finally:
        connections.close_all()  # nobody may find this process in the way


def _main() -> None:
    import django

    django.setup()
    questions = _questions()
    for line in sys.stdin:
        name, arguments = json.loads(line)
        sys.stdout.write(f"{json.dumps(_answer(questions[name], arguments))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    _main()
