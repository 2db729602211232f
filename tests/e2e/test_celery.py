"""Celery for real: a worker, a beat and a Redis, and workers that are killed."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import services
from tests.e2e.offsite import S3, keep_on
from tests.e2e.project import REPOSITORY, Project, sqlite_project

SECONDS = 240
VISIBILITY = 3
LARGE = 400 * 2**20

APP = """\
import os, sys
sys.path[:0] = [{repository!r}, os.path.dirname(os.path.abspath(__file__))]
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
from celery import Celery

app = Celery("shop", broker={broker!r})
app.conf.broker_transport_options = {{
    "visibility_timeout": {visibility},
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}}
app.autodiscover_tasks()
import django
django.setup()
"""

EVERY_SECOND = """\
from mipyme_backup.schedule import beat_schedule
app.conf.beat_schedule = beat_schedule()
for entry in app.conf.beat_schedule.values():
    entry["schedule"] = 1.0
"""

PICKLED = """\
import uuid
class Planted:
    def __reduce__(self):
        return open, ({planted!r}, "w")
with celery_app.app.connection_for_write() as connection:
    connection.Producer(serializer="pickle").publish(
        ((), dict(label=Planted()), dict()),
        routing_key="celery",
        headers=dict(task="mipyme_backup.backup", id=str(uuid.uuid4()), lang="py"),
    )
"""

DATABASE_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with services.redis() as url:
        yield url


@pytest.fixture
def shop(workdir: Path, broker: str) -> Iterator[Project]:
    """A project with a Celery app."""
    _redis(broker).flushall()
    with sqlite_project(workdir / "site") as project:
        project.populate()
        _write_app(project, broker, visibility=3600)
        yield project


@pytest.mark.rare
def test_what_beat_and_a_worker_make_of_a_day(shop: Project, broker: str) -> None:
    _write_app(shop, broker, EVERY_SECOND, visibility=3600)

    with _celery(shop, "worker", "--concurrency", "2"), _celery(shop, "beat", "-s", "beat.db"):
        _wait(lambda: sorted(row["kind"] for row in _rows(shop)) == ["daily", "monthly"])
        time.sleep(5)  # it has been asked five more times
    rows = _rows(shop)

    assert sorted(row["kind"] for row in rows) == ["daily", "monthly"]
    assert {row["status"] for row in rows} == {"complete"}
    assert shop.manage("verify_backups", "--level", "content").returncode == 0


def test_each_task(shop: Project) -> None:
    with _celery(shop, "worker", "--concurrency", "1"):
        for call in (
            "backup.delay(kind='pre_deploy', label='by hand')",
            "verify.delay(level='content')",
            "prune.delay()",
            "status.delay()",
        ):
            _send(shop, call)
        _wait(lambda: _log(shop, "worker").count("succeeded in") == 4)

    (row,) = _rows(shop)
    assert (row["kind"], row["label"], row["status"]) == ("pre_deploy", "by hand", "complete")
    assert "correct horse" not in _log(shop, "worker")


def test_what_never_passes_is_not_tried_again(shop: Project) -> None:
    shop.passphrase_file.rename(shop.root / "away")

    with _celery(shop, "worker", "--concurrency", "1"):
        _send(shop, "backup.delay()")
        _wait(lambda: "TaskError" in _log(shop, "worker"))

    assert "passphrase" in _log(shop, "worker") and "Retry in" not in _log(shop, "worker")


def test_worker_that_is_killed(shop: Project, broker: str) -> None:
    """Its message comes back; what it left is tidied up; there is one backup, and it is good."""
    _write_app(shop, broker)
    slot = _newest_slot(shop)
    (shop.media / "large").write_bytes(os.urandom(LARGE))  # it takes a while

    with _celery(shop, "worker", "--concurrency", "1") as worker:
        _send(shop, f"run_job.delay(job='daily', slot={slot!r})")
        _wait(lambda: any(shop.backups.glob("pool/*/*")))
        os.killpg(worker.pid, signal.SIGKILL)
    killed = _rows(shop)
    with _celery(shop, "worker", "--concurrency", "1"):
        _wait(lambda: any(row["status"] == "complete" for row in _rows(shop)))
        time.sleep(VISIBILITY + 2)  # it may come once more
    rows = _rows(shop)

    assert [row["status"] for row in killed] == ["running"]
    assert sorted(row["status"] for row in rows) == ["abandoned", "complete"]
    assert shop.manage("verify_backups", "--level", "content").returncode == 0
    shop.destroy()
    assert shop.restore("--latest")["status"] == "complete"


@pytest.mark.torture
def test_worker_that_sleeps_longer_than_its_message(shop: Project, broker: str) -> None:
    """Stopped in the middle, while another one is sent the same slot, and woken."""
    _write_app(shop, broker)
    slot = _newest_slot(shop)
    (shop.media / "large").write_bytes(os.urandom(LARGE))
    one_at_a_time = ("--concurrency", "1", "--prefetch-multiplier", "1")  # takes no second message

    with _celery(shop, "worker", *one_at_a_time) as worker:
        _send(shop, f"run_job.delay(job='daily', slot={slot!r})")
        _wait(lambda: any(shop.backups.glob("pool/*/*")))
        os.killpg(worker.pid, signal.SIGSTOP)
        with _celery(shop, "worker", "--concurrency", "1", name="second"):
            _send(shop, f"run_job.delay(job='daily', slot={slot!r})")
            _wait(lambda: "'outcome': 'busy'" in _log(shop, "second"))
        os.killpg(worker.pid, signal.SIGCONT)
        _wait(lambda: any(row["status"] == "complete" for row in _rows(shop)))
        time.sleep(VISIBILITY + 2)

    assert [row["status"] for row in _rows(shop)] == ["complete"]
    assert shop.manage("verify_backups", "--level", "content").returncode == 0


def test_install_beat(workdir: Path) -> None:
    with sqlite_project(workdir / "site") as project:
        project.more_settings = 'INSTALLED_APPS += ["django_celery_beat"]\n'
        project.write()
        project.manage("migrate")
        for _number in range(2):  # the model has no rule against it
            project.execute(
                "INSERT INTO django_celery_beat_crontabschedule"
                " (minute, hour, day_of_week, day_of_month, month_of_year, timezone)"
                " VALUES ('*/15', '*', '*', '*', '*', 'Europe/Madrid')"
            )

        first = project.json("schedule_backups", "install-beat")
        again = project.json("schedule_backups", "install-beat")
        tasks = project.execute(
            "SELECT name, task, expire_seconds, enabled FROM django_celery_beat_periodictask"
            " WHERE task LIKE 'mipyme%'"
        )

    assert first["message"] == "Celery beat sends what is due, every 15 minutes."
    assert again["message"] == "Celery beat did so already."
    assert [tuple(task) for task in tasks] == [
        ("mipyme_backup: what is due", "mipyme_backup.run_due", 900, 1)
    ]


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", pytest.param("UTC", marks=pytest.mark.torture)])
@pytest.mark.rare
def test_beat_that_reads_the_database(shop: Project, zone: str) -> None:
    """With Celery's defaults, which are UTC, and a project in whatever zone.

    The row fires as it was installed, since beat was off for half an hour; then an administrator
    has it fire each second, while beat runs.
    """
    shop.more_settings = f"""\
INSTALLED_APPS += ["django_celery_beat"]
TIME_ZONE = {zone!r}
"""
    shop.write()
    shop.manage("migrate", "--verbosity=0")
    shop.manage("schedule_backups", "install-beat")
    off_since = datetime.now(UTC) - timedelta(minutes=30)
    _set_task(shop, f"last_run_at = '{off_since:%Y-%m-%d %H:%M:%S}'")
    beat = ("beat", "--scheduler", DATABASE_SCHEDULER, "--max-interval", "1")

    with _celery(shop, "worker", "--concurrency", "2"), _celery(shop, *beat):
        _wait(lambda: _kinds(shop) == ["daily", "monthly"])
        sent_as_installed = _times_sent(shop)
        shop.execute(
            "INSERT INTO django_celery_beat_intervalschedule (every, period) VALUES (1, 'seconds')"
        )
        of_a_second = "(SELECT id FROM django_celery_beat_intervalschedule)"
        _set_task(shop, f"crontab_id = NULL, interval_id = {of_a_second}")
        _wait(lambda: _times_sent(shop) >= sent_as_installed + 4)

    assert sent_as_installed in {1, 2}  # a quarter of an hour may have begun meanwhile
    assert _kinds(shop) == ["daily", "monthly"]
    assert {row["status"] for row in _rows(shop)} == {"complete"}


def _set_task(project: Project, values: str) -> None:
    """Change the row as the admin does: a beat that runs is told."""
    project.execute(f"UPDATE django_celery_beat_periodictask SET {values} WHERE name LIKE 'mipy%'")
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"
    project.execute(f"UPDATE django_celery_beat_periodictasks SET last_update = '{now}'")


def _times_sent(project: Project) -> int:
    """Return how often a worker was asked for what is due; beat itself counts only now and then."""
    return len(re.findall(r"Task mipyme_backup\.run_due\[\S+ received", _log(project, "worker")))


def _kinds(project: Project) -> list[str]:
    return sorted(row["kind"] for row in _rows(project))


@pytest.mark.torture
def test_twenty_at_once(shop: Project, scaled: Callable[[int, int], int]) -> None:
    """One runs; the others say who holds the lock."""
    count = scaled(20, 6)
    (shop.media / "large").write_bytes(os.urandom(200 * 2**20))  # the one outlasts all starts
    processes = [
        subprocess.Popen(
            shop.command("backup", "--json"),
            env=shop.environment(),
            cwd=shop.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _number in range(count)
    ]
    said = [process.communicate(timeout=SECONDS)[0] for process in processes]

    assert sorted(process.returncode for process in processes) == [0] + [5] * (count - 1)
    messages = [
        json.loads(text)["error"]["message"]
        for text, process in zip(said, processes, strict=True)
        if process.returncode == 5
    ]
    assert all("Another run holds the lock: backup (process " in message for message in messages)
    assert [row["status"] for row in _rows(shop)] == ["complete"]


def test_messages_of_another_s_making(shop: Project) -> None:
    """A broker without a password takes them from anyone: false slots, and odd arguments."""
    calls = (
        "'run_job', dict(job='daily', slot='2099-01-01T02:00:00+00:00')",
        "'run_job', dict(job='daily', slot='2001-01-01T02:00:00+00:00')",
        "'run_job', dict(job=['daily'], slot={'a': 1})",
        "'run_job', dict(job='../../x', slot='')",
        "'run_task', dict(task_id={'pk': 1})",
        "'run_task', dict(task_id='x' * 10**6)",
        "'backup', dict(kind='daily', slot='2099-01-01T02:00:00+00:00')",
        "'backup', dict(kind='safety')",
        "'complete', dict(identifier='../..')",
        "'drill', dict(language='../../etc')",
    )
    sent = [
        f"celery_app.app.send_task('mipyme_backup.' + {name}, kwargs={arguments})"
        for name, _comma, arguments in (call.partition(", ") for call in calls)
    ]
    with _celery(shop, "worker", "--concurrency", "1"):
        _send(shop, "; ".join(sent))
        _send(shop, "status.delay()")
        _wait(lambda: "status: done" in _ended(shop))

    assert "backup: done" not in _ended(shop)

    assert _rows(shop) == []
    log = _log(shop, "worker")
    assert "correct horse" not in log
    assert "xxxxxx" not in log
    assert "Traceback" not in log


def test_pickled_message_is_not_unpickled(shop: Project) -> None:
    """To unpickle one is to run what its writer chose; the worker goes on with the next message."""
    planted = shop.root / "planted"

    with _celery(shop, "worker", "--concurrency", "1"):
        _send(shop, PICKLED.format(planted=str(planted)))
        _send(shop, "status.delay()")
        _wait(lambda: "status: done" in _ended(shop))

    assert not planted.exists()
    assert "ContentDisallowed" in _log(shop, "worker")


def test_hundred_messages_make_one_backup(shop: Project) -> None:
    """A writer to the broker cannot fill the destination; the schedule has its own backups."""
    slot = _newest_slot(shop)
    with _celery(shop, "worker", "--concurrency", "2"):
        _send(shop, "[backup.delay(label=str(number)) for number in range(100)]")
        _send(shop, f"run_job.delay(job='daily', slot={slot!r})")
        _wait(lambda: "run_job: done" in _ended(shop))
        _wait(lambda: _log(shop, "worker").count("raised expected") == 99)

    assert _kinds(shop) == ["daily", "manual"]


@pytest.mark.rare
def test_no_secret_in_broker_results_or_log(shop: Project, broker: str) -> None:
    """Each task once to its success and once to its failure; all that is secret is a canary."""
    canaries = {name: f"canary{secrets.token_hex(12)}" for name in ("key", "secret", "row", "file")}
    keys = {
        "bucket_name": "shop",
        "endpoint_url": "http://127.0.0.1:9",
        "access_key": canaries["key"],
        "secret_key": canaries["secret"],
    }
    keep_on(shop, {"s3": (S3, keys)}, local=True, RETRY_FOR=0)
    shop.more_settings += f"SECRET_KEY = {canaries['secret']!r}\n"
    shop.write()
    (shop.media / "file").write_text(canaries["file"])
    shop.execute(f"INSERT INTO auth_group (name) VALUES ('{canaries['row']}')")
    _write_app(shop, broker, f"app.conf.result_backend = {broker!r}\n", visibility=3600)
    slot = _newest_slot(shop)
    direct = ("backup", "verify", "drill", "prune", "status")
    calls = [f"{verb}.delay()" for verb in direct] + [
        "complete.delay(identifier='none')",
        f"run_job.delay(job='daily', slot={slot!r})",
        "run_task.delay(task_id='none')",
        "run_due.delay()",
    ]

    _send(shop, "; ".join(calls))
    stored = _stored(broker)
    with _celery(shop, "worker", "--concurrency", "1", name="first"):
        _wait(lambda: _results(broker) >= len(calls) - 1)  # `run_due` keeps none
    shop.passphrase_file.rename(shop.root / "away")
    shutil.rmtree(shop.state / "schedule")
    _send(shop, "; ".join(calls))
    with _celery(shop, "worker", "--concurrency", "1", name="second"):
        _wait(lambda: _results(broker) >= 2 * (len(calls) - 1))
    stored += _stored(broker)

    assert b"SUCCESS" in stored and b"FAILURE" in stored and b"mipyme_backup.verify" in stored
    found = stored + (_log(shop, "first") + _log(shop, "second")).encode()
    secret = {**canaries, "passphrase": (shop.root / "away").read_text().strip()}
    assert [name for name, value in secret.items() if value.encode() in found] == []
    assert b"plain.txt" not in stored  # nor the name of a media file


def _results(broker: str) -> int:
    return len(_redis(broker).keys("celery-task-meta-*"))


def _stored(broker: str) -> bytes:
    """Return all that Redis holds, with the bodies of messages as they were before base64."""
    server, found = _redis(broker), list[bytes]()
    for key in server.keys("*"):
        kind = server.type(key)
        if kind == b"string":
            found.append(server.get(key))
        elif kind == b"list":
            found += server.lrange(key, 0, -1)
        elif kind == b"hash":
            found += server.hvals(key)
    bodies = re.findall(rb'"body": "([A-Za-z0-9+/=]+)"', b"\n".join(found))
    return b"\n".join([*found, *map(base64.b64decode, bodies)])


def _redis(broker: str) -> Any:
    import redis

    return redis.Redis.from_url(broker.replace("redis+socket", "unix"))


def _ended(project: Project) -> list[str]:
    """Return the tasks that a worker has done, in order."""
    found = re.findall(r"Task mipyme_backup\.(\w+)\[\S+ succeeded", _log(project, "worker"))
    return [f"{name}: done" for name in found]


def _newest_slot(project: Project) -> str:
    """Return the slot that a daily backup is due for now."""
    jobs = {row["job"]: row for row in project.json("schedule_backups", "show")}
    following = datetime.fromisoformat(jobs["daily"]["next_slot"])
    return (following - timedelta(days=1)).isoformat()


def _write_app(
    project: Project, broker: str, more: str = "", *, visibility: int = VISIBILITY
) -> None:
    """Write what `celery -A` names; a message that is not done in `visibility` comes back."""
    text = APP.format(repository=str(REPOSITORY), broker=broker, visibility=visibility)
    (project.root / "celery_app.py").write_text(text + more)


@contextlib.contextmanager
def _celery(
    project: Project, program: str, *arguments: str, name: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker or a beat in a process group of its own; its log is a file of its name."""
    argv = [sys.executable, "-m", "celery", "-A", "celery_app:app", program, "-l", "INFO"]
    with (project.root / f"{name or program}.log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, *arguments],
            cwd=project.root,
            env={**project.environment(), "C_FORCE_ROOT": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _send(project: Project, call: str) -> None:
    code = f"import celery_app; from mipyme_backup.tasks import *\n{call}"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.root,
        env=project.environment(),
        check=True,
        timeout=SECONDS,
    )


def _log(project: Project, name: str) -> str:
    return (project.root / f"{name}.log").read_text(errors="replace")


def _rows(project: Project) -> list[dict[str, Any]]:
    if not project.backups.exists():
        return []
    rows: list[dict[str, Any]] = project.json("list_backups")
    return rows


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)  # to ask is to run a command
