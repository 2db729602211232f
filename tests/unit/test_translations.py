"""The Spanish texts are whole, and what is stored in English is told in the reader's language."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from babel.messages.catalog import Catalog
from django.utils import translation

from mipyme_backup import errors
from mipyme_backup.errors import DestinationError
from mipyme_backup.messages import Message
from mipyme_backup.sentences import PLACEHOLDER
from mipyme_backup.translation import said, translated
from tests import translations

MISSING = "There is no backup %(identifier)s."


def test_every_text_has_its_spanish_and_no_other_is_kept() -> None:
    texts = translations.extracted()

    found = [*translations.problems(translations.spanish(), texts)]

    assert not found, "run make messages, and translate:\n" + "\n".join(found)
    assert len(texts) > 1000


def test_compiled_catalog_is_that_of_the_texts() -> None:
    compiled = translations.compiled()

    assert translations.messages(compiled) == translations.messages(translations.spanish())
    assert compiled.plural_expr == "(n != 1)"


@pytest.mark.parametrize(
    ("text", "spanish", "problem"),
    [
        ("%(count)d files", None, "without a translation"),
        ("%(count)d files", "%(cuenta)d archivos", "other placeholders"),
        ("%(count)d files", "%(count)s archivos", "other placeholders"),
        ("Which one? ", "¿Cuál?", "other space"),
        (("%(n)d day", "%(n)d days"), ("%(n)d día", "días"), "other placeholders"),
        ("gone", "ido", "no longer used"),
    ],
)
def test_problem_of_the_texts_is_found(text: object, spanish: object, problem: str) -> None:
    texts, catalog = Catalog(), Catalog(locale="es")
    if problem != "no longer used":
        texts.add(text)  # type: ignore[arg-type]
    catalog.add(text, spanish)  # type: ignore[arg-type]

    (found,) = translations.problems(catalog, texts)

    assert problem in found


def test_text_that_the_catalog_lacks_and_a_fuzzy_one_are_found() -> None:
    texts, catalog = Catalog(), Catalog(locale="es")
    texts.add("new")
    texts.add("unsure")
    catalog.add("unsure", "incierto", flags=["fuzzy"])

    assert [*translations.problems(catalog, texts)] == [
        "not in the catalog: 'new'",
        "fuzzy: 'unsure'",
    ]


def test_marked_texts_are_found_wherever_they_stand() -> None:
    python = """
        def show(name):
            print(f"{name}: {_('within')}", gettext("split"
                " in two"), ngettext("one", "many", 2), other("not ours"), _(name))
        """

    assert [*translations.in_python(python.replace("\n        ", "\n"))] == [
        ("split in two",),
        ("one", "many"),
        ("within",),
    ]
    assert [*translations.in_template('{% load i18n %}<b>{% translate "Restore drill" %}</b>')] == [
        ("Restore drill",)
    ]


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("es", "No existe el respaldo x."),
        ("es-co", "No existe el respaldo x."),
        ("es-mx", "No existe el respaldo x."),
        ("en", "There is no backup x."),
        ("fr", "There is no backup x."),
        ("de-at", "There is no backup x."),
    ],
)
def test_language_that_is_not_known_is_english(language: str, expected: str) -> None:
    with translation.override(language):
        assert translated(Message(MISSING, {"identifier": "x"})) == expected
        assert said("There is no backup x.") == expected


def test_what_is_within_a_message_is_translated_too() -> None:
    reason = DestinationError("Cannot %(verb)s %(place)s: %(reason)s", verb="read", place="/b",
                              reason="not a regular file")  # fmt: skip
    copies = Message("%(name0)s: %(status0)s", {"name0": "local", "status0": Message("damaged")})

    with translation.override("es"):
        assert translated(Message("The backup is not whole: %(reason)s", {"reason": reason})) == (
            "El respaldo no está completo: No se puede leer /b: no es un archivo normal"
        )
        assert translated(copies) == "local: dañado"


@pytest.mark.parametrize(
    ("stored", "spanish"),
    [
        ("The run was interrupted.", "La ejecución se interrumpió."),
        ("x.00000 is damaged: its bytes are not those that were written.",
         "x.00000 está dañado: sus bytes no son los que se escribieron."),
        ("The disk of local has 3 % free; 10 % are asked for.",
         "Al disco de local le queda libre el 3 %; se pide el 10 %."),
        ("The backup is not whole: Cannot read /b: Permission denied",
         "El respaldo no está completo: No se puede leer /b: Permission denied"),
        ("default: the sequence shop_id_seq is behind its column",
         "default: la secuencia shop_id_seq va por detrás de su columna"),
        ("table a is missing; table b is missing", "falta la tabla a; falta la tabla b"),
        ("An error of somebody else", "An error of somebody else"),
        ("backup", "backup"),
        ("", ""),
    ],
)  # fmt: skip
def test_stored_sentence_is_told_in_the_language_of_its_reader(stored: str, spanish: str) -> None:
    with translation.override("es"):
        assert said(stored) == spanish
    with translation.override("en"):
        assert said(stored) == stored


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("es-co", "contiene 1.234.567 bytes, y los anteriores 7."),
        ("es-mx", "contiene 1,234,567 bytes, y los anteriores 7."),
        ("en", "it holds 1234567 bytes, and those before it 7."),
    ],
)
def test_numbers_are_written_as_the_language_does(language: str, expected: str) -> None:
    text = "it holds %(now)d bytes, and those before it %(before)d."
    message = Message(text, {"now": 1234567, "before": 7})

    with translation.override(language):
        assert translated(message) == expected
        assert said(str(message)) == expected


def test_percent_signs_of_others_are_left_alone() -> None:
    with translation.override("es"):
        assert said("The backup is not whole: 100 %% %(x)s") == (
            "El respaldo no está completo: 100 %% %(x)s"
        )


def test_project_without_translations_is_told_english(settings: Any) -> None:
    settings.USE_I18N = False

    with translation.override("es"):
        assert said("The run was interrupted.") == "The run was interrupted."


def test_every_text_is_known_again_once_it_is_filled() -> None:
    filled = {"d": "7", "g": "7.5", "s": "thing", "r": "'thing'"}
    texts = [
        text[0]
        for text, spanish in translations.messages(translations.spanish()).items()
        if len(text) == 1 and text != spanish and " " in text[0]
    ]
    unknown = []

    with translation.override("es"):
        for text in texts:
            sentence = PLACEHOLDER.sub(lambda mark: filled[mark[2]], text)
            if said(sentence.replace("%%", "%")) == sentence:
                unknown.append(text)

    assert len(texts) > 900
    assert all(len(translations.PLACEHOLDER.sub("", text)) < 20 for text in unknown), unknown


def unmarked(source: str) -> list[str]:
    """Return the texts of messages and errors that are written out, and not marked."""
    return [
        str(call.args[0].value)
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant)
        if getattr(call.func, "id", "") in {"Message", *dir(errors)} - {"_"}
        if any(map(str.isalpha, translations.PLACEHOLDER.sub("", str(call.args[0].value))))
    ]


def test_every_message_and_error_of_ours_is_marked() -> None:
    files = [
        file
        for file in translations.PACKAGE.rglob("*.py")
        if file.relative_to(translations.PACKAGE).parts[0] not in translations.APART
    ]

    assert not [(file.name, text) for file in files for text in unmarked(file.read_text())]
    assert unmarked('BackupError("It broke.", hint=_("Mend it."))') == ["It broke."]
    assert not unmarked('BackupError("%(reason)s", reason=1); Message(_("It broke."))')
