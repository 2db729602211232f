from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from mipyme_backup.drills.error_log import ErrorLog
from mipyme_backup.operations.rehearsing import command, environment


def test_command__names_a_file_and_nothing_else() -> None:
    assert command(Path("/state/job.json")) == [
        sys.executable,
        "-P",
        "-m",
        "mipyme_backup.drills",
        "/state/job.json",
    ]


def test_environment__is_ours_with_our_modules() -> None:
    ours = {"DATABASE_URL": "postgres://shop@db/shop", "PYTHONPATH": "/old"}

    assert environment(ours, ["", "/srv/shop"]) == {
        "DATABASE_URL": "postgres://shop@db/shop",
        "PYTHONPATH": f"{os.getcwd()}:/srv/shop",
    }


def test_error_log__hears_what_no_handler_gets() -> None:
    before = logging.getLogRecordFactory()
    logger = logging.getLogger("tests.drills.quiet")
    logger.propagate = False
    try:
        log = ErrorLog()
        logger.warning("not an error")
        logger.error("the order %d is lost", 7)
        logger.error("the order %d is lost", 7)
        logger.critical("badly %d formatted", "x")
    finally:
        logging.setLogRecordFactory(before)

    assert log.problems() == [
        "ERROR tests.drills.quiet: the order 7 is lost",
        "CRITICAL tests.drills.quiet: badly %d formatted",
    ]
