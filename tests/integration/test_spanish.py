"""What reaches people without a command speaks the project's language, whoever set it off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import checks
from django.core.management import CommandError, call_command
from django.utils import translation

from mipyme_backup import api, tasks
from mipyme_backup.catalog import Catalog
from mipyme_backup.checks import check_deployment, check_settings
from tests.https_server import HTTPSServer
from tests.integration.test_alerts import alerts, documents, hooks, mails, subjects, texts
from tests.smtpd import MailServer

__all__ = ["hooks", "mails"]

NONE = "No hay ningún respaldo bueno que lo contenga todo."


@pytest.fixture(autouse=True)
def in_spanish(settings: Any) -> Iterator[None]:
    """A project in Spanish, worked with by somebody whose browser asks for English."""
    settings.LANGUAGE_CODE = "es-co"
    with translation.override("en"):
        yield


def test_mail_is_in_the_language_of_the_project(
    backups: Path, settings: Any, mails: MailServer
) -> None:
    alerts(settings, digest="weekly")

    api.watch()
    api.backup()
    api.watch()
    for days in (8, 16):
        api.watch(now=datetime.now(UTC) + timedelta(days=days))

    assert subjects(mails)[0].startswith("[tests] Respaldos: crítico - ")
    assert subjects(mails)[1].startswith("[tests] Respaldos: ")
    assert subjects(mails)[-1].endswith(" (informe)")
    bad, good, *_later = texts(mails)
    assert f"* CRÍTICO: {NONE}" in bad
    assert "-> Haga uno: manage.py backup" in bad and "Nuevo:" in bad
    assert f"Terminado:\n* {NONE} (desde " in good
    assert "Bien:\n* El último respaldo bueno es manual_" in good


def test_test_message_is_in_the_language_of_the_project(
    backups: Path, settings: Any, mails: MailServer
) -> None:
    alerts(settings)

    api.test_alert()

    assert subjects(mails) == ["[tests] Respaldos: mensaje de prueba"]
    assert "Esto es una prueba" in texts(mails)[0]


def test_webhook_is_told_in_the_language_of_the_project(
    backups: Path, settings: Any, hooks: HTTPSServer
) -> None:
    alerts(settings, webhooks=[hooks.url()], recipients=[])

    api.watch()
    api.backup()
    api.watch()

    raised, cleared = documents(hooks)
    assert NONE in [finding["message"] for finding in raised["raised"]]
    assert raised["level"] == "critical" and raised["event"] == "raised"
    assert NONE in [finding["message"] for finding in cleared["cleared"]]


def test_task_answers_in_the_language_of_the_project(backups: Path) -> None:
    seen = tasks.status.apply().get()

    assert NONE in [finding["message"] for finding in seen["findings"]]
    assert seen["level"] == "critical"


def test_failed_task_says_why_in_the_language_of_the_project(backups: Path) -> None:
    backups.mkdir(mode=0o700)
    failed = tasks.complete.apply(kwargs={"identifier": "nada"})

    assert str(failed.result) == "No existe el respaldo nada. list_backups muestra los que hay."


def test_command_speaks_the_language_of_the_project(
    backups: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CommandError) as ended:
        call_command("backup_status")

    assert capsys.readouterr().out.startswith("CRÍTICO  tests en ")
    assert ended.value.returncode == 2
    assert translation.get_language() == "en"  # as it was for who called it


def test_scheduled_job_fails_in_the_language_of_the_project(backups: Path) -> None:
    backups.with_name("passphrase").unlink()
    slot = next(due.slot for due in api.due() if due.job == "daily")

    outcome = tasks.run_job.apply(kwargs={"job": "daily", "slot": slot.isoformat()}).get()

    assert outcome["outcome"] == "failed"
    assert outcome["error"].startswith("No se puede leer el archivo de la contraseña ")


def test_last_look_is_told_in_the_language_of_who_reads_it(backups: Path) -> None:
    api.status()

    english = api.last_look().to_dict()
    with translation.override("es"):
        spanish = api.last_look().to_dict()

    assert "There is no good backup" in json.dumps(english["findings"])
    assert NONE in [finding["message"] for finding in spanish["findings"]]
    assert "does not exist" in english["facts"]["destinations"]["local"]["error"]
    assert "no existe" in spanish["facts"]["destinations"]["local"]["error"]
    kept = json.dumps(Catalog().last_look("tests"))
    assert "does not exist" in kept and "no existe" not in kept


def test_checks_are_in_the_language_of_who_runs_them(backups: Path, settings: Any) -> None:
    settings.MIPYME_BACKUP = {"JOBS": 0, "ALERTS": {"webhooks": ["http://x"]}}

    with translation.override("es"):
        webhooks, jobs = check_settings()
        settings.MIPYME_BACKUP = {}
        (open_to_all,) = [m for m in check_deployment() if m.id == "mipyme_backup.W001"]

    assert jobs.msg == "MIPYME_BACKUP['JOBS'] debe ser un número entero de 1 al menos."
    assert "debe ser una URL como https://" in webhooks.msg
    assert isinstance(jobs, checks.Error)
    assert open_to_all.msg == "Los respaldos no están cifrados."
    assert "contraseña" in str(open_to_all.hint)
