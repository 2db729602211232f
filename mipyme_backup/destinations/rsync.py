"""A host reached by rsync over ssh, also where the account may run nothing but rsync (rrsync)."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

from mipyme_backup.destinations import rsync_command as command
from mipyme_backup.destinations.base import Destination, skew_of
from mipyme_backup.destinations.fetched import Fetched
from mipyme_backup.destinations.listing import Entry, Layout, Listing
from mipyme_backup.destinations.names import check_name, is_name
from mipyme_backup.destinations.rsync_listing import parse_listing, parse_modified
from mipyme_backup.destinations.rsync_run import Outcome, explained, run_rsync
from mipyme_backup.errors import DeletionRefusedError, DestinationError, ObjectMissingError
from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK, Reader

PROBE = ".mipyme_backup_probe"
TEMPORARY = re.compile(r"(?P<folder>(?:.*/)?)\.(?P<name>[^/]+)\.[A-Za-z0-9]{6}", re.DOTALL)
"""What rsync's receiver calls a file until it is whole (`get_tmpname` in its receiver.c)."""

NOT_A_FOLDER = re.compile(r'link_stat ".*" failed: Not a directory')
REFUSED = re.compile(
    r"option --delete\S* has been disabled"
    r"|delete_file: .* failed: (Permission denied|Operation not permitted)"
)
NO_PARENT = re.compile(r'mkdir ".*" failed: No such file or directory')
NO_FSYNC = re.compile(
    r"--fsync(: unknown option| has been disabled)|invalid rsync-command syntax or options"
)
NO_SUCH_CHECKSUM = re.compile(
    r"unknown checksum name|--checksum-choice.*(unknown|disabled)|invalid rsync-command syntax",
    re.IGNORECASE,
)
SLOWEST = 1000
"""Bytes a second; who takes an object more slowly is not waited for."""
ANY_STATUS = range(1, 256)
HASHED_BYTES_A_SECOND = 10_000_000
"""The slowest disk that we wait for while it hashes an object without a word on the line."""


class RsyncDestination(Destination):
    """Keeps backups below the folder `path` of `host`; each call is one run of rsync.

    Host keys are strict: the host's key must be in `known_hosts_file` alone where that is given,
    else in the user's or the machine's. `identity_file` is a private key without a passphrase.
    `path` begins at the account's home folder unless it begins with a slash; below rrsync it
    begins at the guarded folder either way. Raises ConfigurationError for anything else than
    plain names.

    An object is written under rsync's temporary name and renamed, 0600 in folders 0700. One is
    read by way of a private file in `work_folder` (None: the system's temporary folder), which
    takes as much disk as the object, a volume at most, until the reader is closed.

    Names that begin with a dot at the root, those that rsync gives unfinished files, links, and
    whatever else is no regular file are no objects.
    """

    remote = True
    fetches_whole = True
    work_folder: Path | None = None
    control_path = "none"
    """The socket of an ssh connection to share (ssh_config(5), ControlPath)."""

    def __init__(
        self,
        *,
        host: str,
        path: str,
        user: str | None = None,
        port: int = 22,
        identity_file: str | Path | None = None,
        known_hosts_file: str | Path | None = None,
    ) -> None:
        self.address = command.parse_address(
            host=host,
            path=path,
            user=user,
            port=port,
            identity_file=identity_file,
            known_hosts_file=known_hosts_file,
        )
        self._fsync = True
        self._attests = True

    def check(self) -> None:
        """Write a probe and delete it; `may_delete` says whether the latter was allowed.

        Where the account may neither delete nor overwrite, a probe of an earlier run stays, and
        shows no more than that the server answers.
        """
        with self._empty_folder() as folder:
            probe = folder / "probe"
            probe.touch(mode=0o600)
            began = datetime.now(UTC)
            written = self._send(PROBE, probe, make_folder=True)
        stored = parse_modified(self._list_one(PROBE)) if written else None
        self.skew = None if stored is None else skew_of(stored, began)
        try:
            self._remove(PROBE)
        except DeletionRefusedError:
            self.may_delete = False
        else:
            self.may_delete = True

    def put(self, name: str, file: Path) -> None:
        _check(name)
        # What an answer that was lost has stored already is kept, and is no failure.
        if not self._send(name, file) and not self._holds(name, file):
            raise DestinationError(
                _("%(place)s kept what it had as %(name)r."),
                hint=_("The account there may not overwrite: remove the object there by hand."),
                place=self.address.place,
                name=name,
            )

    def vouches_for(self, name: str, file: Path) -> bool:
        """Have the server hash the object with SHA-1, and compare that with `file`.

        False where either side's rsync knows no SHA-1 (it came with rsync 3.2.7): its other
        hashes, MD5 and xxHash, are too weak to leave out reading an object again.
        False, too, where the account may not overwrite, as rsync then compares nothing.
        """
        _check(name)
        if not self._attests:
            return False
        with self._staged(name, file) as folder:
            outcome = self._run(
                *command.COMPARE,
                operands=(f"{folder}/", self.address.place),
                accepted=ANY_STATUS,
                stall_seconds=command.STALL_SECONDS + file.stat().st_size // HASHED_BYTES_A_SECOND,
            )
        if outcome.status != 0:
            if not NO_SUCH_CHECKSUM.search(outcome.stderr):
                raise explained(self.address, outcome)
            self._attests = False
            return False
        changes = [change for change in outcome.output.splitlines() if change[1:2] == b"f"]
        if any(change.startswith(b"<f++") for change in changes):
            raise self._missing(name)
        if any(change.startswith(b"<f") for change in changes):
            raise DestinationError(
                _("%(place)s holds other bytes as %(name)r than were sent."),
                hint=_("Look at the disk there; store the object again."),
                place=self.address.place,
                name=name,
            )
        return any(change.startswith(b".f") for change in changes)

    def open(self, name: str) -> Reader:
        _check(name)
        with (
            self._local_errors(),
            tempfile.TemporaryDirectory(dir=self.work_folder, prefix="rsync_") as folder,
        ):
            outcome = self._run(
                *command.FETCH,
                operands=(self.address.place, f"{folder}/"),
                names=[name],
                accepted=(23,),
            )
            self._fail_unless_missing(outcome)
            fetched = Fetched.of(Path(folder) / name)
        if fetched is None:
            raise self._missing(name)
        return fetched

    def size(self, name: str) -> int | None:
        _check(name)
        listed = parse_listing(self._list_one(name))
        sizes = [entry.size for entry in listed if entry.name == name]
        return sizes[0] if sizes else None

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        found = [
            entry
            for entry in self._listed(prefix.rpartition("/")[0])
            if entry.name.startswith(prefix)
            and is_name(entry.name)
            and not TEMPORARY.fullmatch(entry.name)
        ]
        yield from sorted(found, key=lambda entry: entry.name)

    def listing(self, layout: Layout) -> Listing:
        outcome = self._run(
            *command.list_options(layout.prefixes, layout.above),
            operands=(self.address.place, _nowhere()),
        )
        met = parse_listing(outcome.output, others=True)
        return layout.sorted_out(
            entry
            for entry in met
            # What a folder of such a name holds is listed, and counts by itself.
            if not (entry.name.endswith("/") and entry.name.startswith(layout.prefixes))
            and not TEMPORARY.fullmatch(entry.name)
        )

    def delete(self, name: str) -> None:
        _check(name)
        self._remove(name)

    def describe(self) -> str:
        address = self.address
        options = {
            "port": address.port,
            "identity_file": address.identity_file,
            "known_hosts_file": address.known_hosts_file,
        }
        shown = ", ".join(f"{name}={value}" for name, value in options.items() if value)
        return f"rsync {address.place} ({shown})"

    def sweep(self, prefix: str) -> None:
        """Remove rsync's unfinished files; where the account may not delete they stay."""
        for entry in self._listed(prefix.rpartition("/")[0]):
            match = TEMPORARY.fullmatch(entry.name)
            if match and (match["folder"] + match["name"]).startswith(prefix):
                try:
                    self._remove(entry.name)
                except DeletionRefusedError:
                    return

    def _send(self, name: str, file: Path, *, make_folder: bool = False) -> bool:
        """Store the file; return False where the server was set to keep what it has."""
        with self._staged(name, file) as folder:
            seconds = self._longest(file.stat().st_size)
            outcome = self._push(folder, seconds)
            if outcome.status != 0 and self._fsync and NO_FSYNC.search(outcome.stderr):
                self._fsync = False  # an rsync before 3.2.4 on either side
                outcome = self._push(folder, seconds)
            if make_folder and NO_PARENT.search(outcome.stderr) and self._make_folder():
                outcome = self._push(folder, seconds)
        if outcome.status != 0:
            raise explained(self.address, outcome)
        return any(change.startswith(b"<f") for change in outcome.output.splitlines())

    def _holds(self, name: str, file: Path) -> bool:
        with contextlib.closing(self.open(name)) as kept, file.open("rb") as given:
            while piece := kept.read(CHUNK):
                if given.read(len(piece)) != piece:
                    return False
            return not given.read(1)

    def _push(self, folder: Path, seconds: float) -> Outcome:
        options = command.put_options(bandwidth=self.bandwidth, fsync=self._fsync)
        return self._run(
            *options,
            operands=(f"{folder}/", self.address.place),
            accepted=ANY_STATUS,
            seconds=seconds,
        )

    def _longest(self, size: int) -> float:
        """Return the seconds that sending so many bytes may take."""
        pace = min(SLOWEST, self.bandwidth / 2 if self.bandwidth else SLOWEST)
        return command.CONNECT_SECONDS + command.STALL_SECONDS + size / pace

    def _make_folder(self) -> bool:
        """Make the destination's folder and what lacks above it; rsync alone makes one folder."""
        with self._empty_folder() as empty:
            outcome = self._run(
                *command.MAKE_FOLDER,
                operands=(f"{empty}/", self.address.place),
                accepted=ANY_STATUS,
            )
        return outcome.status == 0

    def _remove(self, name: str) -> None:
        """Remove the file of this name, and each folder above it that is empty then."""
        with self._empty_folder() as empty:
            outcome = self._run(
                *command.delete_options(name),
                operands=(f"{empty}/", self.address.place),
                accepted=ANY_STATUS,
            )
        if outcome.status != 0:
            if REFUSED.search(outcome.stderr):
                raise DeletionRefusedError(
                    _("%(place)s keeps %(name)r: the account there may not delete."),
                    hint=_("Somebody else must delete there what is too old."),
                    place=self.address.place,
                    name=name,
                )
            raise explained(self.address, outcome)
        kept = f"cannot delete non-empty directory: {name}"
        if kept in [
            *outcome.output.decode(errors="replace").splitlines(),
            *outcome.stderr.splitlines(),
        ]:
            raise DestinationError(
                _("%(place)s holds a folder where %(name)r should be an object."),
                hint=_("Look at the folder there; it is none of ours."),
                place=self.address.place,
                name=name,
            )

    def _list_one(self, name: str) -> bytes:
        outcome = self._run(
            *command.LIST_ONE,
            operands=(self.address.place, _nowhere()),
            names=[name],
            accepted=(23,),
        )
        self._fail_unless_missing(outcome)
        return outcome.output

    def _listed(self, folder: str) -> Iterator[Entry]:
        """Yield every file below `folder` (else of all), temporary ones too."""
        if is_name(folder):
            outcome = self._run(
                *command.LIST_FOLDER,
                operands=(self.address.place, _nowhere()),
                names=[f"{folder}/"],
                accepted=(23,),
            )
            self._fail_unless_missing(outcome)
        else:
            outcome = self._run(*command.LIST_ALL, operands=(self.address.place, _nowhere()))
        return parse_listing(outcome.output)

    @contextlib.contextmanager
    def _empty_folder(self) -> Iterator[Path]:
        with self._local_errors(), tempfile.TemporaryDirectory(prefix="rsync_") as folder:
            yield Path(folder)

    @contextlib.contextmanager
    def _staged(self, name: str, file: Path) -> Iterator[Path]:
        """Yield a private folder with the folders of `name`, and in them a link to `file`."""
        with self._empty_folder() as folder:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(file.absolute())
            yield folder

    def _run(
        self,
        *options: str,
        operands: tuple[str, str],
        names: Collection[str] = (),
        accepted: Collection[int] = (),
        stall_seconds: int = command.STALL_SECONDS,
        seconds: float = command.LONGEST_SECONDS,
    ) -> Outcome:
        """Run rsync to its end; raises DestinationError for a status neither 0 nor accepted.

        `seconds` is how long it may say nothing, as while it moves one object.
        """
        argv = command.rsync_argv(
            self.address,
            *options,
            operands=operands,
            control_path=self.control_path,
            stall_seconds=stall_seconds,
        )
        outcome = run_rsync(argv, names, seconds=seconds)
        if outcome.status != 0 and outcome.status not in accepted:
            raise explained(self.address, outcome)
        return outcome

    def _fail_unless_missing(self, outcome: Outcome) -> None:
        """A name below what is a file is missing, as one in a folder that is missing."""
        if outcome.status != 0 and not NOT_A_FOLDER.search(outcome.stderr):
            raise explained(self.address, outcome)

    def _missing(self, name: str) -> ObjectMissingError:
        return ObjectMissingError(
            _("%(place)s holds no %(name)r."),
            hint=_("Use another copy of this backup."),
            place=self.address.place,
            name=name,
        )

    @contextlib.contextmanager
    def _local_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DestinationError(
                _("The temporary files for %(place)s cannot be handled: %(reason)s"),
                hint=_("Look at the temporary folder of this machine (TMPDIR)."),
                place=self.address.place,
                reason=error.strerror or error,
            ) from error


def _check(name: str) -> None:
    check_name(name)
    if TEMPORARY.fullmatch(name):
        raise DestinationError(
            _("%(name)r is no name of an object: rsync calls unfinished files so."), name=name
        )


def _nowhere() -> str:
    """Return the operand that a listing with names insists on, and does not use."""
    return tempfile.gettempdir() + "/"
