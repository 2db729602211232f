"""Stored sentences are known again, whatever fills them; hostile ones cost no more than others."""

from __future__ import annotations

import random
import re
import time

from mipyme_backup.sentences import LONGEST, PLACEHOLDER, SHORTEST, say, texts_in

TEXTS = texts_in("es")
FILLABLE = [text for text in TEXTS.whole if PLACEHOLDER.search(text)]
WORDS = ("shop", "a folder with spaces", "x: y", "1,5", "media/ñandú.png", "one. two", "'quoted'")


def test_each_text_is_known_again(torture_random: random.Random) -> None:
    telling = [text for text in FILLABLE if _letters(text) > 2 * SHORTEST]

    unknown = [text for text in telling if say(_filled(text, torture_random), TEXTS) is None]

    assert len(telling) > 300
    assert unknown == []


def test_sentences_within_each_other_end() -> None:
    for piece in ("a: ", "a; ", "x: No backup matches. ", "No backup matches.; ", "; ", ": "):
        said = say(piece * (LONGEST // len(piece)), TEXTS)

        assert said is None or "Ningún respaldo" in said


def test_hostile_sentence_costs_no_more_than_another() -> None:
    """What stands between the placeholders comes again and again, and the end is not the text's."""
    plain = _seconds("This sentence is none of ours, and so is what follows it. " * 80)

    slow = {
        text: seconds
        for text in FILLABLE
        if (seconds := _seconds(_hostile(text))) > max(plain, 0.005) * 20
    }

    assert slow == {}


def _hostile(text: str) -> str:
    """Return a sentence that begins as the text does, and could be cut in very many ways."""
    start, *others = (part.replace("%%", "%") for part in re.split(PLACEHOLDER.pattern, text)[::3])
    middle = "".join(f"{part}7" for part in others[:-1]) or " 7"
    return f"{start}7{middle * LONGEST}"[: LONGEST - 1] + "\0"


def _filled(text: str, chance: random.Random) -> str:
    fills: dict[str, str] = {}

    def fill(mark: re.Match[str]) -> str:
        name, kind = mark.groups()
        value = chance.choice(WORDS) if kind == "s" else str(chance.randrange(10**6))
        return fills.setdefault(name, value)

    return PLACEHOLDER.sub(fill, text).replace("%%", "%")


def _letters(text: str) -> int:
    return sum(map(str.isalpha, PLACEHOLDER.sub("", text)))


def _seconds(sentence: str) -> float:
    began = time.process_time()
    say(sentence, TEXTS)
    return time.process_time() - began
