"""A process that hardly ever stops to write: it moves money between accounts until it is ended.

Run as ``writer.py KIND``, KIND being ``sqlite`` or ``postgresql``, with ``DSN`` in the environment.
Each transfer is one transaction over two tables; a lost connection is made again, any other error
ends the process.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import sys
import time
from typing import Any

import psycopg

PAUSE = 0.002
"""Seconds: three writers leave some of two processors to what is tested."""


def main(kind: str, dsn: str) -> None:
    while True:
        try:
            with contextlib.closing(_connect(kind, dsn)) as connection:
                while True:
                    _transfer(kind, connection)
        except (psycopg.OperationalError, sqlite3.OperationalError):
            time.sleep(0.01)


def _connect(kind: str, dsn: str) -> Any:
    if kind == "sqlite":
        return sqlite3.connect(f"file:{dsn}?mode=rw", uri=True, timeout=30, isolation_level=None)
    return psycopg.connect(dsn, autocommit=True, connect_timeout=60)


def _transfer(kind: str, connection: Any) -> None:
    sender, receiver = random.sample(range(1, 51), 2)
    amount = random.randint(1, 100)
    connection.execute("BEGIN IMMEDIATE" if kind == "sqlite" else "BEGIN")
    # In the order of the keys, so that two writers never wait for each other in a circle.
    for account, change in sorted([(sender, -amount), (receiver, amount)]):
        connection.execute(
            f"UPDATE zoo_account SET balance = balance + {change} WHERE id = {account}"
        )
    connection.execute(
        "INSERT INTO zoo_transfer (sender_id, receiver_id, amount)"
        f" VALUES ({sender}, {receiver}, {amount})"
    )
    connection.execute("COMMIT")
    time.sleep(PAUSE)


if __name__ == "__main__":
    main(sys.argv[1], os.environ["DSN"])
