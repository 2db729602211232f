"""What is run for an rsync destination: the grammar of its address, and pure argv.

No name of an object is on the server's command line: names travel over rsync's own protocol, as
the files of a folder, as a list, or as filters. What a shell on the server sees is the
destination's path alone, and the grammar leaves it no character that has a meaning to a shell.
So `--protect-args`, which rrsync refuses, is not needed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mipyme_backup.errors import ConfigurationError
from mipyme_backup.messages import _

CONNECT_SECONDS = 20
STALL_SECONDS = 60
ALIVE_SECONDS = 15
LONGEST_SECONDS = 86_400
"""After a day without a word of rsync we no longer wait, whatever keeps the connection alive."""

HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")
ZONE = re.compile(r"[A-Za-z0-9._-]{1,15}")
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
STEP = re.compile(r"[A-Za-z0-9._@+=,][A-Za-z0-9._@+=,-]*")

SSH_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "CheckHostIP=no",
    "UpdateHostKeys=no",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "ControlMaster=no",
    f"ConnectTimeout={CONNECT_SECONDS}",
    f"ServerAliveInterval={ALIVE_SECONDS}",
    f"ServerAliveCountMax={STALL_SECONDS // ALIVE_SECONDS}",
    "LogLevel=ERROR",
)


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where an rsync destination is, and how to get in; holds nothing that needs quoting."""

    host: str
    path: str
    user: str | None
    port: int
    identity_file: str | None
    known_hosts_file: str | None

    @property
    def place(self) -> str:
        """The destination's folder as rsync's operand."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}:{self.path}" if self.user else f"{host}:{self.path}"


def parse_address(
    *,
    host: object,
    path: object,
    user: object = None,
    port: object = 22,
    identity_file: object = None,
    known_hosts_file: object = None,
) -> Address:
    """Return the address with its path ended by a slash; raises ConfigurationError."""
    if user is not None and not (isinstance(user, str) and USER.fullmatch(user)):
        raise _bad("user", _("letters, digits, dots, dashes and underscores, no dash first"))
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        raise _bad("port", _("a whole number from 1 to 65535"))
    return Address(
        host=_host(host),
        path=_path(path),
        user=user,
        port=port,
        identity_file=_local_file("identity_file", identity_file),
        known_hosts_file=_local_file("known_hosts_file", known_hosts_file),
    )


def ssh_command(address: Address, control_path: str) -> str:
    """Return the remote shell for rsync's ``--rsh``, which cuts it at blanks."""
    argv = ["ssh", "-T", "-p", str(address.port)]
    for option in (*SSH_OPTIONS, f"ControlPath={control_path}"):
        argv += ["-o", option]
    if address.identity_file is not None:
        argv += ["-i", address.identity_file, "-o", "IdentitiesOnly=yes"]
    if address.known_hosts_file is not None:
        argv += ["-o", f"UserKnownHostsFile={address.known_hosts_file}"]
        argv += ["-o", "GlobalKnownHostsFile=none"]
    return " ".join(argv)


def rsync_argv(
    address: Address,
    *options: str,
    operands: tuple[str, str],
    control_path: str = "none",
    stall_seconds: int = STALL_SECONDS,
) -> list[str]:
    return [
        "rsync",
        f"--rsh={ssh_command(address, control_path)}",
        "--no-protect-args",
        f"--timeout={stall_seconds}",
        *options,
        "--",
        *operands,
    ]


def put_options(*, bandwidth: int | None, fsync: bool) -> list[str]:
    """Return what sends a folder's files whole and private; `bandwidth` in bytes a second.

    Each is written under a temporary name and renamed, as rsync does. Without ``--perms`` the
    modes are those of what is new; a folder that is there already keeps its own.
    """
    options = ["--recursive", "--copy-links", "--ignore-times", "--whole-file"]
    options += ["--chmod=D700,F600", "--out-format=%i"]
    if fsync:
        options.append("--fsync")
    if bandwidth is not None:
        options.append(f"--bwlimit={max(1, bandwidth // 1024)}")  # in KiB a second
    return options


MAKE_FOLDER = ("--dirs", "--mkpath", "--perms", "--chmod=D700")
"""Makes the destination's folder, and what lacks above it, out of an empty one."""

COMPARE = (
    "--recursive",
    "--copy-links",
    "--dry-run",
    "--whole-file",
    "--checksum",
    "--checksum-choice=sha1",
    "--itemize-changes",
    "--itemize-changes",
    "--out-format=%i",
)
NAMES_FROM_STDIN = ("--from0", "--files-from=-", "--no-implied-dirs")
FETCH = (*NAMES_FROM_STDIN, "--ignore-missing-args", "--no-dirs", "--whole-file", "--chmod=F600")
LIST = ("--list-only", "--8-bit-output", "--no-human-readable")
LIST_ALL = (*LIST, "--recursive", "--exclude=/.*", "--exclude=/*/*/*/*")
LIST_FOLDER = (
    *LIST,
    *NAMES_FROM_STDIN,
    "--ignore-missing-args",
    "--recursive",
    "--exclude=/*/*/*/*",
)
LIST_ONE = (*LIST, *NAMES_FROM_STDIN, "--ignore-missing-args", "--no-dirs")


def list_options(prefixes: Iterable[str], above: Iterable[str]) -> list[str]:
    """Return what lists the root, and below it only what begins with a prefix; no folders there.

    `above` are the folders of which the prefixes speak one step further down. The first filter
    that fits counts.
    """
    nested = [f"/{literal(folder)}" for folder in sorted(above)]
    plain = [f"/{literal(p)}*" for p in prefixes if not any(f"/{p}".startswith(a) for a in nested)]
    filters = [f"--exclude={deep}/*/" for deep in (*plain, *(f"{folder}/*" for folder in nested))]
    filters += [f"--include={folder}/*" for folder in plain]
    filters += [f"--include={folder}{below}" for folder in nested for below in ("/*/", "/*/*")]
    return [*LIST, "--recursive", "--exclude=/.*", *filters, "--exclude=/*/*"]


def delete_options(name: str) -> list[str]:
    """Return what deletes the object, and each folder above it that is empty then.

    An empty folder is sent, and what the server has beyond that deleted: of all it has, the
    filters leave the object and the folders on its way, the rest is protected, and so a folder
    that holds anything else stays. No more can go than the name has steps.
    (`--delete-missing-args` would say it in a word; the servers of several distributions refuse
    it since a security fix, until rsync 3.4.4.)
    """
    steps = name.split("/")
    folders = ["/".join(steps[:depth]) + "/" for depth in range(1, len(steps))]
    includes = [f"--include=/{literal(path)}" for path in (*folders, name)]
    return [
        "--recursive",
        "--existing",
        "--delete",
        f"--max-delete={len(steps)}",
        "--out-format=%i",
        *includes,
        "--exclude=*",
    ]


def literal(name: str) -> str:
    """Return the filter pattern that is `name` alone; a backslash quotes only beside wildcards."""
    return re.sub(r"([*?[\\])", r"\\\1", name) if re.search(r"[*?[]", name) else name


def _host(host: object) -> str:
    if isinstance(host, str):
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if ":" in bare and _is_ipv6(bare):
            return bare
        if HOST.fullmatch(host):
            return host
    raise _bad("host", _("a host's name or address"))


def _is_ipv6(text: str) -> bool:
    address, percent, zone = text.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or ZONE.fullmatch(zone) is not None


def _path(path: object) -> str:
    """Accept ``/srv/backups``, ``backups/shop`` (below the home folder) and, for rrsync, ``/``."""
    if isinstance(path, str) and path:
        steps = path.strip("/").split("/")
        if path.strip("/") == "" or all(STEP.fullmatch(step) and step != ".." for step in steps):
            return path.rstrip("/") + "/"
    raise _bad(
        "path", _("a folder on the server: steps of letters, digits and ._@+=,- with / between")
    )


def _local_file(option: str, file: object) -> str | None:
    """Return the file's absolute path; rsync and ssh would each cut or expand a stranger one."""
    if file is None:
        return None
    if isinstance(file, str | Path):
        path = Path(file).expanduser()
        if path.is_absolute() and all(STEP.fullmatch(step) for step in path.parts[1:]):
            return str(path)
    raise _bad(option, _("an absolute path: steps of letters, digits and ._@+=,- with / between"))


def _bad(option: str, expected: str) -> ConfigurationError:
    return ConfigurationError(
        _("OPTIONS.%(option)s of the rsync destination must be %(expected)s."),
        hint=_("Look at DESTINATIONS in MIPYME_BACKUP."),
        option=option,
        expected=expected,
    )
