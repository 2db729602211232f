"""What an rsync destination is made of: grammar, argv, listing, meanings. Starts nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from mipyme_backup import conf
from mipyme_backup.destinations import Entry, RsyncDestination
from mipyme_backup.destinations.rsync_command import (
    delete_options,
    parse_address,
    put_options,
    rsync_argv,
)
from mipyme_backup.destinations.rsync_errors import explain
from mipyme_backup.destinations.rsync_listing import parse_listing, parse_modified
from mipyme_backup.errors import ConfigurationError, DestinationError

BAD: dict[str, list[Any]] = {
    "host": [
        "", "-oProxyCommand=id", "a b", "a;id", "$(id)", "`id`", "host:22", "user@host", "a\n",
        "[::1", "::zz", "[a]", "host/", "a'b", "::1%a b", "a-", 5, None,
    ],
    "user": ["", "-l", "-oProxyCommand=id", "a b", "a;id", "a@b", "a\n", "$USER", 5],
    "path": [
        "", "-e", "-oProxyCommand=id", "a b", "a;id", "$(id)", "..", "../x", "/a/../b", "~", "~/a",
        "a:b", ":b", "a//b", "a\0b", "a\n", "*", "a/-b", "a'b", "á", 5, None,
    ],
    "port": [0, 65536, "22", True, None, 22.0],
    "identity_file": ["key", "", "/a b", "/%h", "/a'b", "/-a", '/"', 5],
    "known_hosts_file": ["hosts", "/a b", "/%d/x", "/a\nb"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option, values in BAD.items() for value in values]
)
def test_what_is_no_plain_name_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_address(**{"host": "backup.example.org", "path": "/srv", option: value})

    assert f"OPTIONS.{option} " in str(caught.value)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"host": "backup.example.org", "path": "/srv/shop"}, "backup.example.org:/srv/shop/"),
        ({"host": "192.0.2.1", "path": "shop/", "user": "u1-sub2"}, "u1-sub2@192.0.2.1:shop/"),
        ({"host": "2001:db8::1", "path": "/", "user": "me"}, "me@[2001:db8::1]:/"),
        ({"host": "[fe80::1%eth0]", "path": "."}, "[fe80::1%eth0]:./"),
    ],
)
def test_address__becomes_one_operand(options: dict[str, str], place: str) -> None:
    assert parse_address(**options).place == place


RSH = (
    "--rsh=ssh -T -p 2222 -o BatchMode=yes -o StrictHostKeyChecking=yes -o CheckHostIP=no"
    " -o UpdateHostKeys=no -o ForwardAgent=no -o ForwardX11=no -o ClearAllForwardings=yes"
    " -o PermitLocalCommand=no -o RemoteCommand=none -o RequestTTY=no -o ControlMaster=no"
    " -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
    " -o LogLevel=ERROR -o ControlPath=none -i /etc/shop/key -o IdentitiesOnly=yes"
    " -o UserKnownHostsFile=/etc/shop/known_hosts -o GlobalKnownHostsFile=none"
)


def test_argv__is_strict_about_the_host_and_brings_nothing_of_ours_along() -> None:
    address = parse_address(
        host="::1",
        path="/srv/shop",
        user="keeper",
        port=2222,
        identity_file=Path("/etc/shop/key"),
        known_hosts_file="/etc/shop/known_hosts",
    )

    assert rsync_argv(address, "--recursive", operands=("/tmp/x/", address.place)) == [
        "rsync",
        RSH,
        "--no-protect-args",
        "--timeout=60",
        "--recursive",
        "--",
        "/tmp/x/",
        "keeper@[::1]:/srv/shop/",
    ]


@pytest.mark.parametrize(
    ("bandwidth", "option"),
    [(None, []), (1, ["--bwlimit=1"]), (5_000_000, ["--bwlimit=4882"])],
)
def test_bandwidth__is_told_in_whole_kibibytes(bandwidth: int | None, option: list[str]) -> None:
    options = put_options(bandwidth=bandwidth, fsync=True)

    assert [text for text in options if text.startswith("--bwlimit")] == option


def test_delete__names_the_object_and_protects_the_rest() -> None:
    assert delete_options("pool/a*\\b/files") == [
        "--recursive",
        "--existing",
        "--delete",
        "--max-delete=3",
        "--out-format=%i",
        "--include=/pool/",
        "--include=/pool/a\\*\\\\b/",
        "--include=/pool/a\\*\\\\b/files",
        "--exclude=*",
    ]


def test_settings_to_copy__build_a_destination() -> None:
    guide = Path(__file__).parents[3] / "docs" / "howto" / "rsync.md"
    (block,) = re.findall(r"^```python$(.*?)^```$", guide.read_text(), re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(block, namespace)

    with override_settings(MIPYME_BACKUP=namespace["MIPYME_BACKUP"]):
        part = conf.load().destinations["vault"]

    assert part.backend == "mipyme_backup.destinations.RsyncDestination"
    assert RsyncDestination(**part.options).address.place == "shop@vault.example.org:/backups/"


LISTING = rb"""drwx------           4096 2026/11/23 23:43:05 .
-rw-------              8 2026/11/23 23:43:05 backup/with two  blanks
lrwxrwxrwx             11 2026/11/23 23:43:05 link
prw-r--r--              0 2026/11/23 23:43:05 pipe
-rw-r--r--+ 1099511627776 2026/11/23 23:43:05 a\#012b\#134#012 -> c"""


def test_listing__gives_the_regular_files_by_their_true_names() -> None:
    assert list(parse_listing(LISTING + b"\n-rw-r--r--   0 2026/11/23 23:43:05 \xff\n")) == [
        Entry(name="backup/with two  blanks", size=8),
        Entry(name="a\nb\\#012 -> c", size=2**40),
        Entry(name="\udcff", size=0),
    ]


@pytest.mark.parametrize(
    "line",
    [b"Welcome!", b"-rw------- x 2026/11/23 23:43:05 a", b"-rw------- 8 2026/11/23 23:43:05 "],
)
def test_listing__with_a_line_that_is_none_is_no_listing(line: bytes) -> None:
    with pytest.raises(DestinationError, match="cannot be understood"):
        list(parse_listing(LISTING + b"\n" + line))


def test_listing__says_when_the_first_file_was_written() -> None:
    assert parse_modified(LISTING) == datetime(2026, 11, 23, 23, 43, 5, tzinfo=UTC)


@pytest.mark.parametrize("listing", [b"", b"-rw------- 8 0000/00/00 00:00:00 a"])
def test_listing__that_does_not_say_when(listing: bytes) -> None:
    assert parse_modified(listing) is None


CLOSED = "rsync: connection unexpectedly closed (0 bytes received so far) [sender]"


@pytest.mark.parametrize(
    ("status", "stderr", "message", "hint", "permanent"),
    [
        (12, "ssh: connect to host h port 22: Connection refused", "reached", "port 22", False),
        (255, "ssh: connect to host h port 22: Connection timed out", "reached", "network", False),
        (12, f"Timeout, server h not responding.\n{CLOSED}", "lost", "network", False),
        (30, "rsync error: timeout in data send/receive (code 30)", "lost", "network", False),
        (255, "ssh: Could not resolve hostname h: Name or service", "name", "OPTIONS.host", False),
        (12, CLOSED, "failed", "server's log", False),
        (-9, "", "failed", "server's log", False),
        (255, "u@h: Permission denied (publickey).", "let us in", "authorized_keys", True),
        (255, "Host key verification failed.", "not known", "ssh-keyscan -p 22 h", True),
        (12, "Host key for h has changed and you", "another host key", "fingerprint", True),
        (255, "@ WARNING: UNPROTECTED PRIVATE KEY FILE! @", "read by others", "chmod 600", True),
        (127, "bash: line 1: rsync: command not found", "on the server", "package rsync", True),
        (14, "rsync: Failed to exec ssh: No such file", "this machine", "openssh-client", True),
        (11, "write failed on x: No space left on device (28)", "full", "Free some space", True),
        (23, 'mkstemp "/x/.a" failed: Permission denied (13)', "mkstemp", "permissions", True),
        (23, 'change_dir "/x" failed: No such file or directory (2)', "exist", "Mount it", True),
        (12, "rrsync error: Another instance of rrsync is", "one connection", "-no-lock", False),
        (12, "rrsync error: sending to read-only server is", "may not", "-ro", True),
        (12, "rrsync error: option --x has been disabled", "refuses", "rsync 3.1", True),
        (
            2,
            "protocol version mismatch -- is your shell clean?",
            "not rsync",
            "print nothing",
            True,
        ),
        (23, "something else", "something else", "permissions", True),
    ],
)
def test_explain__says_what_it_is_and_what_to_do(
    status: int, stderr: str, message: str, hint: str, permanent: bool
) -> None:
    error = explain(status, stderr, place="h:/x/", host="h", port=22)

    assert message in str(error) and "h:/x/" in str(error)
    assert hint in str(error.hint)
    assert error.permanent is permanent
