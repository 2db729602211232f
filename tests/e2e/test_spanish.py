"""An operator whose project is in Spanish reads Spanish from every command, to the last line."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests import translations
from tests.e2e.project import Project, sqlite_project

ENGLISH = re.compile(
    r"\b(the|and|of|is|are|was|were|be|been|with|from|it|its|this|that|which|there|has|have"
    r"|not|or|to|for|backups?|restore|drill|none|failed|good|stored|days?|took|size|kind|free"
    r"|yes|key|warning|critical|fine|nothing|last|newest)\b",
    re.IGNORECASE,
)
"""Words that no Spanish text of ours holds; what is a name or to be typed is taken out before."""

VERBATIM = re.compile(
    r"""
    /[^\s]+                                  # a path
    | \w*_\w+                                # a command, a backup, a setting
    | --?[a-z][-\w]*                         # an option
    | \[[^]]*\] | \{[^}]*\}                  # what argparse shows of them
    | stored:                                # a choice that is explained
    | manage\.py[ ]\w+([ ]run-due)?          # a command with its name
    | (?:schedule_backups|restore)[ ][-\w]+
    | "[^"]*" | '[^']*' | `[^`]*`
    | \b(?:database|media|fixtures|local|status|daily|monthly|verify|prune|drill)\b(?!\s+\w+\s+de)
    """,
    re.VERBOSE,
)


def english_in(text: str) -> list[str]:
    """Return the lines of `text` that still hold English."""
    return [line for line in text.splitlines() if ENGLISH.search(VERBATIM.sub(" ", line))]


def untranslated_in(text: str) -> list[str]:
    """Return our own texts that stand in `text` in English, by their longest piece."""
    shown = " ".join(text.split())
    found = []
    for (message, *_plural), (spanish, *_more) in translations.messages(
        translations.spanish()
    ).items():
        longest = max(translations.PLACEHOLDER.split(message), key=len).strip(" .:,;")
        if len(longest) > 12 and " " in longest and longest not in spanish and longest in shown:
            found.append(message)
    return found


SET_UP_WELL = """
MIPYME_BACKUP["DESTINATIONS"]["local"]["BACKEND"] = "tests.faulty.FarAway"
JOBS = ("status", "daily", "monthly", "verify", "prune", "drill")
MIPYME_BACKUP["SCHEDULE"] = dict.fromkeys(JOBS)
"""
"""A copy elsewhere, and no schedule, so that nothing is to be warned of."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project in the Spanish of Colombia, with rows and a file, and no backup yet."""
    with sqlite_project(tmp_path_factory.mktemp("spanish")) as project:
        project.more_settings = 'LANGUAGE_CODE = "es-co"\n' + SET_UP_WELL
        project.write()
        project.manage("migrate", "--verbosity=0")
        project.manage("populate_zoo")
        project.media.mkdir(exist_ok=True)
        project.backups.mkdir(mode=0o700, exist_ok=True)
        (project.media / "foto.jpg").write_bytes(b"foto" * 5000)
        yield project


@pytest.fixture
def project(original: Project, workdir: Path) -> Project:
    return original.clone(workdir)


def spoken(project: Project, *args: str, status: int = 0, answer: str | None = None) -> str:
    """Run a command, and return all that it says; none of it may be English."""
    ended = project.manage(*args, check=False, input=answer, env={"COLUMNS": "160"})
    text = ended.stdout + ended.stderr.replace("CommandError: ", "")
    assert ended.returncode == status, text
    assert not english_in(text) and not untranslated_in(text)
    return text


def test_day_of_an_operator_has_no_english_in_it(project: Project) -> None:
    assert "CRÍTICO" in (none := spoken(project, "backup_status", status=2))
    assert "No hay ningún respaldo bueno" in none and "Haga uno: manage.py backup" in none
    assert "Copia             local: completo" in (made := spoken(project, "backup"))
    assert re.search(r"\d\d tablas, \d\.\d{3} filas", made) and "Confirmando lo que" in made
    assert "Terminado" in spoken(project, "list_backups")
    assert "BIEN" in spoken(project, "backup_status")
    assert "bien" in spoken(project, "verify_backups", "--level", "content")
    assert "No tiene más de 30 días." in spoken(project, "prune_backups", "--dry-run")
    assert "Antes se guardan los datos en uso" in spoken(project, "restore", "--latest", "--plan")
    assert "Próxima" in spoken(project, "schedule_backups", "show")
    drill = spoken(project, "restore_drill")
    assert "superado" in drill and "Simulacro: Un usuario inicia sesión" in drill
    (page,) = (project.state / "drills").glob("*.html")
    assert not untranslated_in(page.read_text()) and '<html lang="es">' in page.read_text()
    assert "Agregue esta línea" in spoken(project, "schedule_backups", "install-cron", "--print")


def test_errors_and_their_hints_are_in_spanish(project: Project) -> None:
    assert "list_backups muestra los que hay" in spoken(
        project, "restore", "nada", "--plan", status=4
    )
    assert "argumentos desconocidos: --nada" in spoken(project, "backup", "--nada", status=2)
    error = json.loads(project.manage("backup", "--only", "nada", "--json", check=False).stdout)[
        "error"
    ]

    assert error == {
        "code": "usage",
        "message": "No existe el origen nada.",
        "hint": "Orígenes conocidos: database:default, fixtures, media",
    }
    shutil.rmtree(project.backups)
    assert "Se sigue sin el destino local: " in spoken(project, "list_backups", status=1)


@pytest.mark.parametrize(
    "command",
    sorted(
        file.stem for file in (translations.PACKAGE / "management" / "commands").glob("[a-z]*.py")
    ),
)
def test_help_is_in_spanish(project: Project, command: str) -> None:
    text = spoken(project, command, "--help")

    assert text.startswith("uso: ") and "mostrar esta ayuda y terminar" in text


@pytest.mark.parametrize(
    ("answer", "restored"),
    [("sí", True), ("si", True), ("S", True), ("yes", True), ("no", False), ("", False),
     ("siempre", False), ("claro", False)],
)  # fmt: skip
def test_only_a_clear_yes_restores(project: Project, answer: str, restored: bool) -> None:
    if not project.json("list_backups"):
        project.backup()
    (project.media / "foto.jpg").write_text("otra")

    text = spoken(project, "restore", "--latest", "--only", "media", answer=f"{answer}\n")

    assert "¿Restaurar este respaldo? [s/N]" in text
    assert ("No se cambió nada." not in text) is restored
    assert ((project.media / "foto.jpg").read_text() != "otra") is restored


def test_what_was_stored_in_english_is_told_in_spanish(project: Project) -> None:
    made = project.backup()
    volume = next((project.backups / made["name"]).glob("database*"))
    volume.write_bytes(volume.read_bytes()[:-1] + b"?")

    verified = spoken(project, "verify_backups", status=6)
    shown = spoken(project, "backup_status", status=2)
    (document,) = project.json("list_backups")

    assert "sus bytes no son los que se escribieron" in " ".join(verified.split())
    assert "ya no tiene ninguna copia buena: local: dañado" in shown
    assert document["status"] == "complete"  # statuses are not translated
    assert document["copies"][0]["error"].endswith("sus bytes no son los que se escribieron.")
    with closing(sqlite3.connect(project.database["NAME"])) as database:
        (kept,) = database.execute("SELECT error FROM mipyme_backup_copy").fetchone()
    assert kept.endswith("its bytes are not those that were written.")


def test_what_keeps_migrate_from_losing_data_is_told_in_spanish(project: Project) -> None:
    project.backup_settings = {"MIGRATE_GUARD": True}
    project.write()
    project.passphrase_file.unlink()

    refused = project.manage("migrate", "zoo", "zero", check=False)

    assert refused.returncode == 1
    assert "No se migró nada, porque no se pudo hacer antes un respaldo" in refused.stderr
    assert "Para migrar sin respaldo, ponga MIGRATE_GUARD en False" in refused.stderr


@pytest.mark.parametrize(
    ("language", "says"), [("es-mx", "CRÍTICO"), ("en", "CRITICAL"), ("fr", "CRITICAL")]
)
def test_language_is_that_of_the_project(project: Project, language: str, says: str) -> None:
    project.more_settings = f"LANGUAGE_CODE = {language!r}\n"
    project.write()

    assert project.manage("backup_status", check=False).stdout.startswith(says)


def test_project_without_translations_speaks_english(project: Project) -> None:
    project.more_settings += "USE_I18N = False\n"
    project.write()

    shown = project.manage("backup_status", check=False).stdout

    assert shown.startswith("CRITICAL") and "There is no good backup" in shown


def test_english_would_be_seen(project: Project) -> None:
    project.more_settings = 'LANGUAGE_CODE = "en"\n' + SET_UP_WELL
    project.write()

    for args in (["backup"], ["list_backups"], ["backup_status"], ["restore", "--help"]):
        ended = project.manage(*args)

        assert english_in(ended.stdout), args
    assert untranslated_in(project.manage("backup").stderr)  # what it is at
