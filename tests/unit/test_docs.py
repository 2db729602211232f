"""What a user can set, call or meet is named in the reference."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand

import mipyme_backup
from mipyme_backup import conf, destinations, encryption, errors, sources
from mipyme_backup.management.commands.backup import PARTIAL
from mipyme_backup.sources.media.files import FileOptions

PACKAGE = Path(mipyme_backup.__file__).parent
DOCS = PACKAGE.parent / "docs"
SETTINGS = (DOCS / "reference" / "settings.md").read_text()
COMMANDS = (DOCS / "reference" / "commands.md").read_text()
CHECKS = (DOCS / "reference" / "checks.md").read_text()

COMMAND_NAMES = sorted(
    path.stem for path in (PACKAGE / "management" / "commands").glob("[a-z]*.py")
)
COMMON = {"--json", "--noinput", "--no-input"}


def _named(text: str) -> set[str]:
    """Return every word that the text sets as code, also those within longer code."""
    spans = re.findall(r"``[^`]+``|`[^`]+`", text)
    return {word for span in spans for word in re.findall(r"-{0,2}[\w.]+(?:-\w+)*", span)}


def _backends() -> Iterator[tuple[str, type]]:
    bases = (sources.Source, destinations.Destination, encryption.Encryption)
    for room in (sources, destinations, encryption):
        for name in room.__all__:
            backend = getattr(room, name)
            if issubclass(backend, bases) and not inspect.isabstract(backend):
                yield f"{room.__name__}.{name}", backend


def _error_classes() -> list[type[errors.BackupError]]:
    found = [errors.BackupError]
    for error in found:
        found += error.__subclasses__()
    return [error for error in found if error.__module__ == errors.__name__]


@pytest.mark.parametrize("key", sorted(conf._KEYS))
def test_setting_is_named(key: str) -> None:
    assert key in _named(SETTINGS)


@pytest.mark.parametrize(
    "entry",
    sorted(
        {
            *conf.DEFAULT_RETENTION,
            *conf.DEFAULT_SCHEDULE,
            *conf.DEFAULT_ALERTS,
            *conf._DESTINATION_KEYS,
            *conf._SOURCE_KEYS,
            *conf._CONTACT,
        }
    ),
)
def test_entry_of_a_setting_is_named(entry: str) -> None:
    assert entry in _named(SETTINGS)


@pytest.mark.parametrize(("path", "backend"), list(_backends()))
def test_back_end_and_its_options_are_named(path: str, backend: type) -> None:
    assert {path, *_back_end_options(backend)} <= _named(SETTINGS)


def _back_end_options(backend: type) -> set[str]:
    """Return the options, also those that are handed on to `FileOptions`."""
    parameters = dict(inspect.signature(backend).parameters)
    if "options" in parameters and parameters["options"].kind is inspect.Parameter.VAR_KEYWORD:
        del parameters["options"]
        return {*parameters, *_back_end_options(FileOptions)}
    return {*parameters}


def test_no_setting_is_named_that_does_not_exist() -> None:
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \|", SETTINGS, re.MULTILINE)
    documented = {key for row in rows for key in re.findall(r"`(\w+)`", row)}

    assert documented == conf._KEYS.keys()


@pytest.mark.parametrize("name", COMMAND_NAMES)
def test_command_and_its_options_are_named(name: str) -> None:
    heading = re.compile(rf"^## {name}$(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)

    (section,) = heading.findall(COMMANDS)

    assert _options(name) <= _named(section)


@pytest.mark.parametrize("name", COMMAND_NAMES)
def test_no_option_is_named_that_does_not_exist(name: str) -> None:
    (section,) = re.findall(rf"^## {name}$(.*?)(?=^## |\Z)", COMMANDS, re.DOTALL | re.MULTILINE)
    every = {option for other in COMMAND_NAMES for option in _options(other)} | COMMON

    assert {word for word in _named(section) if word.startswith("--")} <= every


def test_options_that_all_commands_have_are_named() -> None:
    introduction = COMMANDS.partition("\n## ")[0]

    assert _named(introduction) >= COMMON


def test_no_command_is_named_that_does_not_exist() -> None:
    headings = set(re.findall(r"^## ([a-z_]+)$", COMMANDS, re.MULTILINE))

    assert headings == set(COMMAND_NAMES)


def test_every_check_is_named_and_no_other() -> None:
    pattern = r"mipyme_backup\.[EWI]\d{3}"
    used = {
        check for path in PACKAGE.rglob("*.py") for check in re.findall(pattern, path.read_text())
    }

    assert used == set(re.findall(pattern, CHECKS))


def test_every_finding_is_named_and_no_other() -> None:
    rules = [*(PACKAGE / "policy").glob("status_*.py"), PACKAGE / "api/watching.py"]
    source = "".join(path.read_text() for path in [*rules, PACKAGE / "monitoring/last_look.py"])
    begins = set(re.findall(r'(?:\bid=f?|_nothing\(|_unknown\()"([a-z_]+)', source))
    findings = (DOCS / "reference" / "findings.md").read_text()
    rows = re.findall(r"^\| (`[a-z_:A-Z`, ]+`) \|", findings, re.MULTILINE)
    documented = {word for row in rows for word in re.findall(r"`([a-z_]+)[`:]", row)}

    assert len(begins) > 10
    assert {word for word in documented if not any(word.startswith(b) for b in begins)} == set()
    assert {b for b in begins if not any(word.startswith(b) for word in documented)} == set()


def test_every_exit_status_is_named_and_no_other() -> None:
    used = {0, PARTIAL, *(error.exit_status for error in _error_classes())}
    rows = re.findall(r"^\| (\d+) \|", COMMANDS, re.MULTILINE)

    assert {int(row) for row in rows} == used


def test_every_error_code_is_named_with_its_exit_status_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d) \|", COMMANDS, re.MULTILINE)

    assert {(code, int(status)) for code, status in rows} == {
        (error.code, error.exit_status) for error in _error_classes()
    }


def test_links_between_documents_lead_somewhere() -> None:
    files = [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")]
    links = [
        (file, link)
        for file in files
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text())
    ]

    assert len(links) > 10
    assert [(file.name, link) for file, link in links if not (file.parent / link).exists()] == []


def _options(name: str) -> set[str]:
    """Return the command's own options, without those of Django and of all our commands."""
    parser = load_command_class("mipyme_backup", name).create_parser("manage.py", name)
    of_django = BaseCommand().create_parser("manage.py", name)
    known = {string for action in of_django._actions for string in action.option_strings}
    return {
        string
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction)
        for string in action.option_strings
    } - (known | COMMON)
