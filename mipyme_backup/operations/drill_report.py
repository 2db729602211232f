"""The evidence of a drill: a JSON file, and a page to fill in, sign and keep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.template import Context, Engine
from django.utils import timezone

from mipyme_backup.operations.drill_words import WORDS
from mipyme_backup.operations.project import Project
from mipyme_backup.private_files import make_folder, sync_folder, write_file

if TYPE_CHECKING:
    from mipyme_backup.operations.drill import DrillResult

LANGUAGES = tuple(WORDS)
KEPT = 100
"""How many reports stay, the newest: of monthly drills those of eight years."""
DISASTER: Sequence[str] = WORDS["en"]["disaster"]
"""The policy's checklist, in English: what stands for its lines wherever they are kept."""

TEMPLATES = Path(__file__).parent.parent / "templates" / "mipyme_backup"


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
    folder = project.state_dir / "drills"
    make_folder(folder)
    name = f"drill_{result.started_at:%Y%m%dT%H%M%SZ}_{result.id}"
    paths = (folder / f"{name}.json", folder / f"{name}.html")
    named = replace(result, reports=paths)
    document = {"project": project.name, "host": asked.host, **named.to_dict()}
    for path, text in (
        (paths[0], json.dumps(document, indent=1) + "\n"),
        (paths[1], render(project.name, named, asked)),
    ):
        temporary = path.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        write_file(temporary, text.encode())
        temporary.rename(path)
    _remove_oldest(folder, name)
    sync_folder(folder)
    return named


def _remove_oldest(folder: Path, made: str) -> None:
    """Remove all but the newest reports; the one just `made` stays, whatever the clock says."""
    names = {path.stem for path in folder.glob("drill_*") if path.suffix in {".json", ".html"}}
    for name in sorted(names - {made}, reverse=True)[KEPT - 1 :]:
        for ending in (".json", ".html"):
            (folder / f"{name}{ending}").unlink(missing_ok=True)


def render(project: str, result: DrillResult, asked: Asked) -> str:
    """Return the page: self-contained, fit to be printed."""
    words = WORDS[asked.language]
    steps, verified = evidence([step.to_dict() for step in result.steps], asked.language)
    context = {
        "words": words,
        "language": asked.language,
        "project": project,
        "host": asked.host,
        "drill": result,
        "started": _moment(result.started_at),
        "finished": _moment(result.finished_at),
        "steps": steps,
        "verified": verified,
        "checklist": words["disaster"] if asked.checklist is None else asked.checklist,
    }
    engine = Engine(dirs=[str(TEMPLATES)], autoescape=True)
    return engine.get_template("drill_report.html").render(Context(context))


def evidence(
    steps: Sequence[Mapping[str, Any]], language: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the `steps`, as `Step.to_dict` has them, with titles, and the policy's questions.

    In English where there are no words of the `language`.
    """
    words = WORDS.get(language, WORDS["en"])
    return [_row(step, words) for step in steps], _verified(steps, words)


def _row(step: Mapping[str, Any], words: dict[str, Any]) -> dict[str, Any]:
    kind, _colon, about = step["name"].partition(":")
    said = words["steps"].get(kind, kind)
    return {**step, "title": f"{said}: {about}" if about else said}


def _verified(steps: Sequence[Mapping[str, Any]], words: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the policy's questions with the steps' answers, None where no step was taken."""
    answers = {step["name"]: step["ok"] for step in steps}
    return [
        {"question": question, "ok": answers.get(name)}
        for name, question in words["verified"].items()
    ]


def _moment(at: datetime) -> str:
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S %Z}"
