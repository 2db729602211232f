"""A project of another's making, in which this app is the only thing of ours."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tests.e2e.project import Project
from tests.fingerprint import MediaEntry

Rows = dict[str, str]
Content = tuple[dict[str, str], dict[bytes, MediaEntry]]

# Numbered anew in each database, or of no use in another one.
OF_EACH_DATABASE = ("admin", "auth.Permission", "contenttypes", "mipyme_backup", "sessions")
CAST = re.compile(r"::(character varying|text)(\[\])?|[()]")


def settings_of(name: str) -> str:
    """Return the Python that makes a test's settings those of the project `name`."""
    return (
        f"from tests.field.{name}.settings import *\n"
        'INSTALLED_APPS = [*INSTALLED_APPS, "mipyme_backup"]\n'
        "SILENCED_SYSTEM_CHECKS = []\n"
        'ALLOWED_HOSTS = ["localhost"]\n'
    )


@dataclass(kw_only=True)
class FieldProject:
    """The project `name` of this package, on the database and in the folder of `project`."""

    name: str
    project: Project

    def __post_init__(self) -> None:
        self.project.more_settings = settings_of(self.name)
        self.project.write()

    def fill(self) -> None:
        """Make its tables, as its own migrations do, and put rows and files into it."""
        self.project.manage("migrate", "--verbosity=0")
        self.call("fill", f"tests.field.{self.name}.fill")

    def content(self) -> Content:
        """Return every row, and every file.

        What a load computes from the rows, a materialised view, may have been out of date before.
        A server writes a condition that it has read from a dump with other casts.
        """
        content: dict[str, str] = self.call("fingerprint", "tests.fingerprint", "connection")
        computed = [
            name.replace("relation", "rows", 1)
            for name, value in content.items()
            if name.startswith("relation ") and value.startswith("materialised view")
        ]
        rows = {
            name: CAST.sub("", value) if name.startswith("index ") else value
            for name, value in content.items()
            if name not in computed
        }
        return rows, self.project.media_fingerprint()

    def rows(self, *without: str) -> Rows:
        """Return each row in a form that does not depend on the engine, by its model and key."""
        excluded = [f"--exclude={label}" for label in (*OF_EACH_DATABASE, *without)]
        dump = self.project.manage("dumpdata", "--all", "--natural-foreign", *excluded).stdout
        return {f"{row['model']} {row['pk']}": _ordered(row["fields"]) for row in json.loads(dump)}

    def call(self, function: str, module: str, argument: str = "") -> Any:
        """Call a `function` of `module` in a process of the project's, and return its result."""
        code = (
            f"import json\nfrom django.db import connection\nfrom {module} import {function}\n"
            f"print(json.dumps({function}({argument})))"
        )
        said = self.project.manage("shell", "--no-imports", "-c", code).stdout
        return json.loads(said.splitlines()[-1])


def _ordered(fields: dict[str, Any]) -> str:
    """Return it with the keys of JSON in one order; PostgreSQL does not keep theirs."""
    for name, value in fields.items():
        if isinstance(value, str) and value[:1] in ("[", "{"):
            fields[name] = json.loads(value)
    return json.dumps(fields, sort_keys=True)
