"""What is logged as an error while a drill runs. Imports no Django."""

from __future__ import annotations

import logging
from collections.abc import Sequence


class ErrorLog:
    """Every error that is logged from now on in this process, whatever handlers there are."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}
        self._make = logging.getLogRecordFactory()
        logging.setLogRecordFactory(self._note)

    def problems(self) -> Sequence[str]:
        return [*self._found]

    def _note(self, *args: object, **kwargs: object) -> logging.LogRecord:
        record = self._make(*args, **kwargs)
        if record.levelno >= logging.ERROR:
            self._found[f"{record.levelname} {record.name}: {_text(record)}"] = None
        return record


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return str(record.msg)
