"""Errors carry a text, a hint, an exit status; every text of the package can be rendered."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mipyme_backup
from mipyme_backup import errors
from mipyme_backup.errors import BackupError, reason_of
from mipyme_backup.messages import Message

PACKAGE = Path(mipyme_backup.__file__).parent
PLACEHOLDER = re.compile(r"%\((\w+)\)")
OPTIONS = {"hint", "permanent"}


def every_error() -> list[type[BackupError]]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return [kind for kind in kinds if issubclass(kind, BackupError)]


def test_text_and_hint_are_filled_from_the_same_parameters() -> None:
    error = BackupError("%(tool)s is missing", hint="Install %(tool)s.", tool="gpg")

    assert str(error) == "gpg is missing"
    assert str(error.hint) == "Install gpg."
    assert error.message.text == "%(tool)s is missing"


def test_a_text_without_parameters_is_left_as_it_is() -> None:
    assert str(BackupError("100 % full, 5%s")) == "100 % full, 5%s"
    assert str(BackupError("plain").hint) == ""
    assert str(Message("plain")) == "plain"


def test_whether_to_try_again_can_be_said_by_kind_or_by_case() -> None:
    assert BackupError("x").permanent
    assert not errors.SourceBusyError("x").permanent
    assert not errors.DestinationError("x", permanent=False).permanent
    assert errors.DestinationError.permanent


@pytest.mark.parametrize("kind", every_error())
def test_an_error_survives_the_way_between_processes(kind: type[BackupError]) -> None:
    error = kind("%(a)s", hint="Do %(b)s.", permanent=False, a="one", b="two")

    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert (str(twin), str(twin.hint), twin.permanent) == ("one", "Do two.", False)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BackupError("The disk %(name)s is full", name="a"), "The disk a is full"),
        (KeyboardInterrupt(), "The run was interrupted."),
        (OSError(28, "No space left on device", "/srv/secret"), "OSError: No space left on device"),
        (RuntimeError("https://user:password@host"), "RuntimeError"),
    ],
)
def test_reason_says_nothing_that_a_foreign_error_does(error: BaseException, reason: str) -> None:
    assert reason_of(error) == reason


def test_every_kind_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in every_error()]

    assert len(codes) == len(set(codes)) > 10


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.BackupError, 1),
        (errors.ConfigurationError, 1),
        (errors.PreflightError, 1),
        (errors.UsageError, 2),
        (errors.NoBackupError, 4),
        (errors.KeyMissingError, 4),
        (errors.LockedError, 5),
        (errors.DamagedError, 6),
        (errors.DestinationError, 1),
    ],
)
def test_exit_statuses_are_those_that_are_documented(kind: type[BackupError], status: int) -> None:
    assert kind.exit_status == status


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node


def marked(node: ast.expr | None) -> list[str]:
    """Return the texts that are marked for translation in `node`, where they are constants."""
    found = []
    for part in ast.walk(node) if node is not None else ():
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "_":
            assert isinstance(part.args[0], ast.Constant), f"line {part.lineno}: not a constant"
            found.append(str(part.args[0].value))
    return found


def test_every_text_has_the_parameters_that_it_names() -> None:
    checked = 0
    problems = []
    for path in PACKAGE.rglob("*.py"):
        for call in calls(path):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            given = {keyword.arg for keyword in call.keywords}
            if not name.endswith("Error") or None in given or not call.args:
                continue
            texts = marked(call.args[0])
            hints = [keyword.value for keyword in call.keywords if keyword.arg == "hint"]
            texts += [text for hint in hints for text in marked(hint)]
            for text in texts:
                checked += 1
                missing = set(PLACEHOLDER.findall(text)) - given
                bare = "%" in PLACEHOLDER.sub("", text).replace("%%", "") and given - OPTIONS
                if missing or bare:
                    problems.append(f"{path.name}:{call.lineno}: {text!r} lacks {missing or '%%'}")

    assert not problems, "\n".join(problems)
    assert checked > 100


@pytest.mark.parametrize(
    "room", ["streams", "encryption", "manifest.py", "errors.py", "process.py", "messages.py"]
)
def test_bytes_and_formats_import_no_django(room: str) -> None:
    place = PACKAGE / room
    files = [place] if place.is_file() else [*place.glob("*.py")]
    imported = {
        name
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
        if name
    }

    assert files
    assert not [name for name in imported if name.split(".")[0] == "django"]
