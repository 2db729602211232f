"""Settings are typed, complete by default, and every mistake names its key."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cronsim import CronSim

from mipyme_backup import conf
from mipyme_backup.errors import ConfigurationError

LOCAL = "mipyme_backup.destinations.LocalDestination"


@pytest.fixture(autouse=True)
def _no_settings(settings: Any) -> None:
    settings.MIPYME_BACKUP = {}


def given(settings: Any, **keys: Any) -> conf.Settings:
    settings.MIPYME_BACKUP = keys
    return conf.load()


def problem(settings: Any, **keys: Any) -> str:
    """Return the one problem that `problems` finds and `load` raises."""
    settings.MIPYME_BACKUP = keys
    (found,) = conf.problems()
    with pytest.raises(ConfigurationError) as caught:
        conf.load()
    assert str(caught.value) == str(found)
    return str(found)


def test_without_any_settings_everything_has_a_default(settings: Any) -> None:
    del settings.MIPYME_BACKUP
    settings.BASE_DIR = Path("/srv/shop")

    loaded = conf.load()

    assert loaded.project == "tests"
    assert list(loaded.sources) == ["database", "fixtures", "media"]
    assert loaded.destinations == {
        "local": conf.Part(backend=LOCAL, options={"location": Path("/srv/shop/backups")})
    }
    assert loaded.state_dir == Path("/srv/shop/.mipyme_backup")
    assert loaded.former_state_dir == Path("/srv/shop/backups/.state")
    assert loaded.encryption is None
    assert loaded.signing_key_file is None
    assert loaded.volume_size == 256 * 2**20
    assert loaded.jobs == os.cpu_count()
    assert loaded.keep_replaced == timedelta(hours=24)
    assert (loaded.rpo, loaded.rto) == (timedelta(hours=24), timedelta(hours=1))
    assert conf.problems() == []


def test_the_defaults_of_the_parts_are_those_that_are_documented() -> None:
    loaded = conf.load()

    assert loaded.retention == {
        "daily": 30,
        "monthly": 90,
        "manual": 30,
        "pre_deploy": 30,
        "safety": 7,
        "minimum_good": 3,
    }
    assert loaded.schedule["daily"] == "0 2 * * *"
    assert loaded.alerts["max_age"] == timedelta(hours=25)
    assert loaded.alerts["max_shrink"] == 0.5


def test_daily_ones_are_kept_longer_elsewhere_unless_that_is_set(settings: Any) -> None:
    assert conf.load().remote_retention == {**conf.load().retention, "daily": 90}

    assert given(settings, RETENTION={"daily": 14}).remote_retention["daily"] == 14


@pytest.mark.parametrize("job", sorted(conf.DEFAULT_SCHEDULE))
def test_the_default_schedule_is_one_that_comes(job: str) -> None:
    expression = conf.DEFAULT_SCHEDULE[job]
    assert expression is not None

    assert next(CronSim(expression, datetime(2025, 1, 1, tzinfo=UTC))).year == 2025


def test_what_is_given_is_taken(settings: Any, tmp_path: Path) -> None:
    loaded = given(
        settings,
        PROJECT="shop",
        STATE_DIR=str(tmp_path),
        SIGNING_KEY_FILE=tmp_path / "key",
        VOLUME_SIZE=64 * 1024,
        JOBS=3,
        KEEP_REPLACED_HOURS=0,
        RPO=timedelta(hours=6),
        RTO=timedelta(minutes=5),
        ENCRYPTION={
            "BACKEND": "mipyme_backup.encryption.GPG",
            "OPTIONS": {"passphrase_file": "/k"},
        },
    )

    assert loaded.project == "shop"
    assert loaded.state_dir == tmp_path
    assert loaded.signing_key_file == tmp_path / "key"
    assert (loaded.volume_size, loaded.jobs) == (65536, 3)
    assert loaded.keep_replaced == timedelta(0)
    assert (loaded.rpo, loaded.rto) == (timedelta(hours=6), timedelta(minutes=5))
    assert loaded.encryption == conf.Part(
        backend="mipyme_backup.encryption.GPG", options={"passphrase_file": "/k"}
    )


def test_settings_are_read_anew_each_time(settings: Any) -> None:
    assert given(settings, PROJECT="one").project == "one"
    assert given(settings, PROJECT="two").project == "two"


@pytest.mark.parametrize(
    ("key", "entry", "value"),
    [
        ("RETENTION", "daily", 5),
        ("SCHEDULE", "drill", None),
        ("SCHEDULE", "daily", "0 */6 * * *"),
        ("ALERTS", "min_size", 0),
        ("ALERTS", "webhooks", ["https://example.org/hook"]),
    ],
)
def test_entries_of_these_are_merged_one_by_one(
    key: str, entry: str, value: object, settings: Any
) -> None:
    defaults = getattr(conf.load(), key.lower())

    merged = getattr(given(settings, **{key: {entry: value}}), key.lower())

    assert merged == {**defaults, entry: value}
    assert getattr(given(settings), key.lower()) == defaults


def test_every_other_key_replaces_its_default_whole(settings: Any) -> None:
    source = {"BACKEND": "shop.backups.Ledger"}
    remote = {"BACKEND": "shop.backups.Tape", "OPTIONS": {"drive": "/dev/st0"}}

    loaded = given(settings, SOURCES={"ledger": source}, DESTINATIONS={"tape": remote})

    assert loaded.sources == {"ledger": conf.Part(backend="shop.backups.Ledger")}
    assert list(loaded.destinations) == ["tape"]


def test_contacts_and_checklist_are_taken_and_what_is_left_out_is_empty(settings: Any) -> None:
    loaded = given(
        settings,
        CONTACTS=[{"role": "Owner", "name": "Ana", "availability": "24/7"}],
        CHECKLIST=("breathe",),
        POLICY_REVIEW=date(2025, 4, 3),
    )

    owner = {"role": "Owner", "name": "Ana", "contact": "", "availability": "24/7"}
    assert (loaded.contacts, loaded.checklist) == ([owner], ["breathe"])
    assert loaded.policy_review == date(2025, 4, 3)


def test_without_contacts_and_checklist_the_policy_has_its_own(settings: Any) -> None:
    loaded = given(settings)

    assert (loaded.contacts, loaded.checklist, loaded.policy_review) == (None, None, None)
    assert given(settings, CONTACTS=[], CHECKLIST=[]).contacts == []


def test_destinations_carry_extra_keys(settings: Any) -> None:
    extra = {"RETENTION": {"daily": 90}, "BANDWIDTH": 10**6, "RETRY_FOR": 60}
    place = {"BACKEND": LOCAL, "OPTIONS": {"location": "/b"}, **extra}

    assert given(settings, DESTINATIONS={"a": place}).destinations["a"].extra == extra


def test_the_state_lies_on_the_host_and_was_in_the_first_local_destination(settings: Any) -> None:
    tape = {"BACKEND": "shop.backups.Tape"}
    places = {
        "tape": tape,
        "one": {"BACKEND": LOCAL, "OPTIONS": {"location": "/one"}},
        "two": {"BACKEND": LOCAL, "OPTIONS": {"location": "/two"}},
    }
    settings.BASE_DIR = "/srv/shop"

    loaded = given(settings, DESTINATIONS=places)
    assert loaded.state_dir == Path("/srv/shop/.mipyme_backup")
    assert loaded.former_state_dir == Path("/one/.state")
    assert given(settings, DESTINATIONS={"tape": tape}).former_state_dir is None
    named = given(settings, DESTINATIONS=places, STATE_DIR="/else")
    assert named.former_state_dir == Path("/one/.state")
    assert given(settings, DESTINATIONS=places, STATE_DIR="/one/.state").former_state_dir is None


@pytest.mark.parametrize("shared", ["MEDIA_ROOT", "STATIC_ROOT", "STATICFILES_DIRS", "destination"])
def test_a_project_whose_folder_others_read_or_write_keeps_its_state_elsewhere(
    shared: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BASE_DIR = "/srv/shop"
    places = {"one": {"BACKEND": LOCAL, "OPTIONS": {"location": "/one"}}}
    if shared == "destination":
        places["one"]["OPTIONS"] = {"location": "/srv"}
    else:
        setattr(settings, shared, ["/srv"] if shared.endswith("DIRS") else "/srv")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    by_root = given(settings, DESTINATIONS=places).state_dir
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/ana/.state")
    by_ana = given(settings, DESTINATIONS=places).state_dir

    assert by_root.parent == Path("/var/lib/mipyme_backup")
    assert by_ana == Path("/home/ana/.state/mipyme_backup") / by_root.name
    assert by_root.name.startswith("tests-")


def test_without_base_dir_the_key_to_set_is_named(settings: Any) -> None:
    del settings.BASE_DIR
    tape = {"BACKEND": "shop.backups.Tape"}

    with pytest.raises(ConfigurationError, match="BASE_DIR") as caught:
        given(settings)
    assert str(caught.value.hint) == "Set MIPYME_BACKUP['DESTINATIONS']."

    with pytest.raises(ConfigurationError, match="BASE_DIR") as caught:
        given(settings, DESTINATIONS={"tape": tape})
    assert str(caught.value.hint) == "Set MIPYME_BACKUP['STATE_DIR']."

    loaded = given(settings, DESTINATIONS={"tape": tape}, STATE_DIR="/var/lib/shop")
    assert loaded.state_dir == Path("/var/lib/shop")


BAD: dict[str, list[Any]] = {
    "PROJECT": ["", None, 7],
    "SOURCES": [None, {}, [], {"a": None}, {"a": {}}, {"a": {"BACKEND": 1}}, {1: {"BACKEND": "x"}}],
    "DESTINATIONS": [None, {}, "local", {"a": LOCAL}, {"": {"BACKEND": "x"}}],
    "RETENTION": [None, 30, [30]],
    "ENCRYPTION": ["gpg", {}, {"OPTIONS": {}}, {"BACKEND": "x", "OPTIONS": []}, False],
    "SIGNING_KEY_FILE": ["relative", "", 7, b"/bytes"],
    "RPO": [None, 24, "24h", timedelta(0), timedelta(hours=-1)],
    "RTO": [None, 3600.0, timedelta(0)],
    "SCHEDULE": [None, "0 2 * * *", []],
    "ALERTS": [None, "me@example.org", []],
    "STATE_DIR": ["relative/folder", "~/state", 7],
    "KEEP_REPLACED_HOURS": [None, -1, 1.5, "24", True],
    "VOLUME_SIZE": [None, 0, 65535, 1e9, "256M", True],
    "JOBS": [None, 0, -1, 2.0, "2", True],
    "CONTACTS": [None, "me", {}],
    "CHECKLIST": [None, "do", {}],
    "POLICY_REVIEW": ["2025-01-01", 2025, datetime(2025, 1, 1)],
    "DRILL_ASSERTIONS": [None, "x", {}],
    "ADMIN_RESTORE": [None, 1, "yes"],
    "MIGRATE_GUARD": [None, 1, "yes"],
    "MONITORING_TOKEN_FILE": ["relative", "", 7, b"/bytes"],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in BAD.items() for value in values]
)
def test_a_bad_value_names_its_key(key: str, value: object, settings: Any) -> None:
    text = problem(settings, **{key: value})

    assert text.startswith(f"MIPYME_BACKUP['{key}")


def test_every_key_was_given_a_bad_value() -> None:
    assert set(BAD) == set(conf._KEYS)


def local(**keys: Any) -> dict[str, Any]:
    return {"a": {"BACKEND": LOCAL, "OPTIONS": {"location": "/b"}, **keys}}


BAD_DAYS: list[Any] = [0, -1, 1.5, "30", None]
BAD_CRON: list[Any] = ["", "daily", "61 * * * *", "* * * *", "@reboot", 7, [], "0 2 * * * * *"]


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        *[({"RETENTION": {"daily": bad}}, "RETENTION.daily") for bad in BAD_DAYS],
        ({"RETENTION": {"minimum_good": 0}}, "RETENTION.minimum_good"),
        *[({"SCHEDULE": {"daily": bad}}, "SCHEDULE.daily") for bad in BAD_CRON],
        ({"ALERTS": {"recipients": "me@example.org"}}, "ALERTS.recipients"),
        ({"ALERTS": {"recipients": [1]}}, "ALERTS.recipients.0"),
        ({"ALERTS": {"recipients": ["a@example.org", "ana"]}}, "ALERTS.recipients.1"),
        ({"ALERTS": {"recipients": ["a@example.org\nBcc: b@example.org"]}}, "ALERTS.recipients.0"),
        ({"ALERTS": {"recipients": ["a@example.org, b@example.org"]}}, "ALERTS.recipients.0"),
        ({"ALERTS": {"recipients": ["A\n <a@example.org>"]}}, "ALERTS.recipients.0"),
        ({"ALERTS": {"webhooks": "https://example.org"}}, "ALERTS.webhooks"),
        ({"ALERTS": {"webhooks": None}}, "ALERTS.webhooks"),
        ({"ALERTS": {"webhooks": ["https://example.org", 7]}}, "ALERTS.webhooks.1"),
        ({"ALERTS": {"heartbeat_url": 7}}, "ALERTS.heartbeat_url"),
        ({"ALERTS": {"heartbeat_url": ""}}, "ALERTS.heartbeat_url"),
        ({"ALERTS": {"max_age": 25}}, "ALERTS.max_age"),
        ({"ALERTS": {"min_size": -1}}, "ALERTS.min_size"),
        ({"ALERTS": {"min_free_disk": 10}}, "ALERTS.min_free_disk"),
        ({"ALERTS": {"max_shrink": "half"}}, "ALERTS.max_shrink"),
        ({"ALERTS": {"digest": 7}}, "ALERTS.digest"),
        ({"ALERTS": {"digest": ["daily"]}}, "ALERTS.digest"),
        ({"ALERTS": {"digest": "monthly"}}, "ALERTS.digest"),
        ({"DESTINATIONS": local(OPTIONS=[])}, "DESTINATIONS.a.OPTIONS"),
        ({"DESTINATIONS": local(BANDWIDTH="1M")}, "DESTINATIONS.a.BANDWIDTH"),
        ({"DESTINATIONS": local(BANDWIDTH=0)}, "DESTINATIONS.a.BANDWIDTH"),
        ({"DESTINATIONS": local(RETRY_FOR=-1)}, "DESTINATIONS.a.RETRY_FOR"),
        ({"DESTINATIONS": local(RETENTION=90)}, "DESTINATIONS.a.RETENTION"),
        ({"DESTINATIONS": local(RETENTION={"daily": 0})}, "DESTINATIONS.a.RETENTION.daily"),
        ({"SOURCES": {"media": {"BACKEND": None}}}, "SOURCES.media"),
        ({"CONTACTS": ["me"]}, "CONTACTS.0"),
        ({"CONTACTS": [{"role": "owner"}, {"name": "Ana"}]}, "CONTACTS.1.role"),
        ({"CONTACTS": [{"role": ""}]}, "CONTACTS.0.role"),
        ({"CONTACTS": [{"role": "owner", "contact": 600123456}]}, "CONTACTS.0.contact"),
        ({"CONTACTS": [{"role": "owner", "name": "Ana\nMaria"}]}, "CONTACTS.0.name"),
        ({"CHECKLIST": ["breathe", 7]}, "CHECKLIST.1"),
        ({"CHECKLIST": [" "]}, "CHECKLIST.0"),
    ],
)
def test_a_bad_value_at_depth_names_its_place(
    keys: dict[str, Any], place: str, settings: Any
) -> None:
    assert problem(settings, **keys).startswith(f"MIPYME_BACKUP['{place}'] must be ")


@pytest.mark.parametrize(
    ("keys", "place", "known"),
    [
        ({"DESTINATION": {}}, "MIPYME_BACKUP['DESTINATION']", "DESTINATIONS"),
        ({7: {}}, "MIPYME_BACKUP[7]", "DESTINATIONS"),
        ({"RETENTION": {"weekly": 9}}, "MIPYME_BACKUP['RETENTION']['weekly']", "monthly"),
        ({"SCHEDULE": {"hourly": "0 * * * *"}}, "MIPYME_BACKUP['SCHEDULE']['hourly']", "daily"),
        ({"ALERTS": {"mail": []}}, "MIPYME_BACKUP['ALERTS']['mail']", "recipients"),
        (
            {"DESTINATIONS": local(OPTION={})},
            "MIPYME_BACKUP['DESTINATIONS.a']['OPTION']",
            "OPTIONS",
        ),
        (
            {"DESTINATIONS": local(RETENTION={"weekly": 9})},
            "MIPYME_BACKUP['DESTINATIONS.a.RETENTION']['weekly']",
            "monthly",
        ),
        (
            {"SOURCES": {"media": {"BACKEND": "x", "RETENTION": {}}}},
            "MIPYME_BACKUP['SOURCES.media']['RETENTION']",
            "OPTIONS",
        ),
        (
            {"ENCRYPTION": {"BACKEND": "x", "passphrase_file": "/k"}},
            "MIPYME_BACKUP['ENCRYPTION']['passphrase_file']",
            "OPTIONS",
        ),
        (
            {"CONTACTS": [{"role": "owner", "phone": "600 123 456"}]},
            "MIPYME_BACKUP['CONTACTS.0']['phone']",
            "availability",
        ),
    ],
)
def test_an_unknown_key_at_any_depth_is_named_with_the_known_ones(
    keys: dict[Any, Any], place: str, known: str, settings: Any
) -> None:
    settings.MIPYME_BACKUP = keys

    (found,) = conf.problems()

    assert str(found) == f"{place} is not a setting of mipyme_backup."
    assert known in str(found.hint)
    with pytest.raises(ConfigurationError, match="is not a setting"):
        conf.load()


@pytest.mark.parametrize("value", [None, [], "x", 7])
def test_a_setting_that_is_no_dict_is_told(value: object, settings: Any) -> None:
    settings.MIPYME_BACKUP = value

    (found,) = conf.problems()

    assert str(found) == "MIPYME_BACKUP must be a dict."
    with pytest.raises(ConfigurationError):
        conf.load()


@pytest.mark.parametrize("options", [{}, {"location": None}, {"location": 7}])
def test_a_local_destination_without_a_place_is_no_traceback(
    options: dict[str, Any], settings: Any
) -> None:
    with pytest.raises(ConfigurationError, match=r"DESTINATIONS\.a\.OPTIONS\.location"):
        given(settings, DESTINATIONS={"a": {"BACKEND": LOCAL, "OPTIONS": options}})


def test_all_problems_are_found_at_once(settings: Any) -> None:
    settings.MIPYME_BACKUP = {"JOBS": 0, "RPO": 1, "TYPO": 1}

    assert len(conf.problems()) == 3


def test_no_value_is_shown_that_could_be_a_secret(settings: Any) -> None:
    text = problem(settings, ENCRYPTION="canary-9d1f")

    assert "canary" not in text


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/canary-9d1f",
        "HTTP://example.org/canary-9d1f",
        "//example.org/canary-9d1f",
        "https:///canary-9d1f",
        "https://example.org:0/canary-9d1f",
        "https://example.org:port/canary-9d1f",
        "https://me:canary-9d1f@example.org/",
        "https://canary-9d1f@example.org/",
        "https://example.org/ canary-9d1f",
        "https://example.org/\ncanary-9d1f",
        "https://ejemplo.ñ/canary-9d1f",
        "canary-9d1f",
    ],
)
@pytest.mark.parametrize("key", ["webhooks", "heartbeat_url"])
def test_url_that_is_not_to_be_called_is_told_without_showing_it(
    key: str, url: str, settings: Any
) -> None:
    value = [url] if key == "webhooks" else url

    text = problem(settings, ALERTS={key: value})

    assert "like https://example.org/path" in text
    assert "canary" not in text


@pytest.mark.parametrize(
    "alerts",
    [
        {"webhooks": ("https://example.org", "https://example.org:8443/a?token=b")},
        {"webhooks": ["HTTPS://EXAMPLE.org/"], "heartbeat_url": "https://hc-ping.com/uuid"},
        {"recipients": ["root@localhost", "Ana María <ana.b+c@example.org>"]},
        {"recipients": [], "webhooks": [], "digest": None},
        {"recipients": None, "digest": "daily"},
    ],
)
def test_good_alerts_are_taken(alerts: dict[str, Any], settings: Any) -> None:
    taken = given(settings, ALERTS=alerts).alerts

    assert {key: taken[key] for key in alerts} == {
        key: [*value] if isinstance(value, tuple) else value for key, value in alerts.items()
    }


def test_good_values_of_every_key_are_taken(settings: Any) -> None:
    given(
        settings,
        CONTACTS=[{"role": "owner"}],
        CHECKLIST=("breathe",),
        POLICY_REVIEW=date(2026, 1, 1),
        DRILL_ASSERTIONS=["shop.drills.has_orders"],
        ADMIN_RESTORE=True,
        MIGRATE_GUARD=True,
        MONITORING_TOKEN_FILE="/etc/token",
        ALERTS={"recipients": ("a@example.org",), "heartbeat_url": None, "min_free_disk": 0},
    )

    assert conf.problems() == []
