"""The evidence of a drill: a JSON file, and a page to fill in, sign and keep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from django.template import Context, Engine
from django.utils import timezone
from django.utils.translation import gettext, override

from mipyme_backup.messages import Message, _
from mipyme_backup.operations.project import Project
from mipyme_backup.private_files import replace_file
from mipyme_backup.results import DrillResult
from mipyme_backup.translation import said, translated

LANGUAGES = ("en", "es")
KEPT = 100
"""How many reports stay, the newest: of monthly drills those of eight years."""

TEMPLATES = Path(__file__).parent.parent / "templates" / "mipyme_backup"

STEPS = {
    "fetch_and_load": _("Fetch, decrypt and load"),
    "counts": _("Rows and hashes as in the manifest"),
    "check": _("The system starts (check)"),
    "migrations": _("No migration is missing"),
    "constraints": _("Constraints hold"),
    "sequences": _("Sequences are ahead of the keys"),
    "files": _("Every file that a row names is there, with its hash"),
    "login": _("A user logs in"),
    "crud": _("Create, read, update, delete"),
    "assertion": _("The project's own assertion"),
    "log": _("No error is logged"),
}
"""What each step does, by the first part of its name."""

QUESTIONS = {
    "check": _("The system starts correctly"),
    "login": _("Login works"),
    "counts": _("Data is visible and correct"),
    "crud": _("CRUD operations work"),
    "log": _("There are no errors in the logs"),
}
"""What the policy asks, by the step that answers it."""

DISASTER = (
    _("Backup available and accessible"),
    _("Standby server set up"),
    _("Access credentials available"),
    _("DNS can point to a new server"),
    _("SSL certificates available"),
    _("Environment variables documented"),
    _("Team notified and available"),
)
"""The policy's own checklist."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How the page is written: its `language`, and the `checklist`, None for the policy's own."""

    language: str = "en"
    checklist: Sequence[str] | None = None
    host: str = ""


def keep(project: Project, result: DrillResult, asked: Asked) -> DrillResult:
    """Write both files into ``STATE_DIR/drills``, private; return the result that names them.

    Of the reports there the oldest go, so that `KEPT` are left.
    """
    folder = project.state.make("drills")
    name = f"drill_{result.started_at:%Y%m%dT%H%M%SZ}_{result.id}"
    paths = (folder / f"{name}.json", folder / f"{name}.html")
    named = replace(result, reports=paths)
    document = {"project": project.name, "host": asked.host, **named.to_dict()}
    document["steps"] = [step.to_dict() for step in named.steps]  # in English, whoever reads it
    for path, text in (
        (paths[0], json.dumps(document, indent=1) + "\n"),
        (paths[1], render(project.name, named, asked)),
    ):
        replace_file(path, text.encode())
    _remove_oldest(folder, name)
    return named


def _remove_oldest(folder: Path, made: str) -> None:
    """Remove all but the newest reports; the one just `made` stays, whatever the clock says."""
    names = {path.stem for path in folder.glob("drill_*") if path.suffix in {".json", ".html"}}
    for name in sorted(names - {made}, reverse=True)[KEPT - 1 :]:
        for ending in (".json", ".html"):
            (folder / f"{name}{ending}").unlink(missing_ok=True)


def render(project: str, result: DrillResult, asked: Asked) -> str:
    """Return the page: self-contained, fit to be printed."""
    with override(asked.language):
        return _page(project, result, asked)


def step_title(name: str) -> Message:
    """Return what the step `name` does."""
    kind, _colon, about = name.partition(":")
    text = Message(STEPS.get(kind, kind))
    return Message("%(step)s: %(about)s", {"step": text, "about": about}) if about else text


def _page(project: str, result: DrillResult, asked: Asked) -> str:
    checklist = map(gettext, DISASTER) if asked.checklist is None else asked.checklist
    steps, verified = evidence([step.to_dict() for step in result.steps])
    context = {
        "language": asked.language,
        "project": project,
        "host": asked.host,
        "drill": result,
        "started": _moment(result.started_at),
        "finished": _moment(result.finished_at),
        "steps": steps,
        "verified": verified,
        "checklist": [*checklist],
    }
    engine = Engine(
        dirs=[str(TEMPLATES)],
        autoescape=True,
        libraries={"i18n": "django.templatetags.i18n"},
    )
    return engine.get_template("drill_report.html").render(Context(context))


def evidence(
    steps: Sequence[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the `steps`, as `Step.to_dict` has them, with titles, and the policy's questions."""
    return [_row(step) for step in steps], _verified(steps)


def _row(step: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **step,
        "title": translated(step_title(step["name"])),
        "problems": [said(problem) for problem in step["problems"]],
    }


def _verified(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the policy's questions with the steps' answers, None where no step was taken."""
    answers = {step["name"]: step["ok"] for step in steps}
    return [
        {"question": gettext(question), "ok": answers.get(name)}
        for name, question in QUESTIONS.items()
    ]


def _moment(at: datetime) -> str:
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S %Z}"
