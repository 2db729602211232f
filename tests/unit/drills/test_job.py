from __future__ import annotations

from pathlib import Path

from mipyme_backup.drills.job import (
    LONGEST_PROBLEM,
    MOST_PROBLEMS,
    Database,
    Files,
    Job,
    Step,
    listed,
)


def test_job_is_read_as_it_was_written() -> None:
    job = Job(
        settings="config.settings",
        databases={
            "default": Database(
                values={"NAME": "shop__drill_1"}, options={"a": 1}, without_options=["pool"]
            ),
            "other": None,
        },
        folder="/state/work/1",
        files=[
            Files(
                folder="/state/work/1/0",
                hashes="/state/hashes",
                aliases={"default": "", "private": "private"},
                fields={"shop.Invoice.pdf": "private/"},
                in_context=["shop.Invoice.pdf"],
            )
        ],
        assertions=["shop.drills.has_orders"],
    )

    assert Job.load(job.dump()) == job


def test_job_writes_a_path_as_its_text() -> None:
    job = Job(
        settings="s",
        databases={"default": Database(values={"NAME": Path("/a/b"), "X": 1})},
        folder="",
    )

    assert Job.load(job.dump()).databases["default"] == Database(
        values={"NAME": "/a/b", "X": 1}, without_options=[]
    )


def test_step_is_good_without_problems() -> None:
    assert Step(name="check", seconds=1.23456).to_dict() == {
        "name": "check",
        "seconds": 1.235,
        "ok": True,
        "problems": [],
    }
    assert not Step(name="check", seconds=0, problems=("bad",)).ok


def test_very_many_problems_are_counted() -> None:
    said = listed([*(f"file {number}" for number in range(MOST_PROBLEMS + 5))])

    assert said[:2] == ("file 0", "file 1")
    assert said[MOST_PROBLEMS:] == ("… and 5 more",)


def test_few_problems_are_all_listed_and_a_long_one_is_cut() -> None:
    assert listed(["a", "b" * 2 * LONGEST_PROBLEM]) == ("a", "b" * LONGEST_PROBLEM)
