"""Writing one backup to its destinations: each volume as it is made, the manifest last."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from mipyme_backup import manifest as manifests
from mipyme_backup.destinations import Destination
from mipyme_backup.encryption.passphrase import derive_key
from mipyme_backup.errors import BackupError
from mipyme_backup.manifest import Manifest, StoredArtifact, Volume
from mipyme_backup.operations.completing import complete
from mipyme_backup.operations.lanes import Lane, Lanes
from mipyme_backup.operations.notes import RunNote
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.recovery_program import put_recovery_program
from mipyme_backup.operations.room import Room
from mipyme_backup.operations.spool import Spool
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Artifact
from mipyme_backup.streams.checked import Checked
from mipyme_backup.streams.compress import SUFFIX
from mipyme_backup.streams.digest import Measured
from mipyme_backup.streams.pipeline import Stage, stored_form
from mipyme_backup.streams.volumes import cut, volume_name

DEPTH = 3
"""So many volumes may wait for one destination: what the spool holds beyond that of the others."""
GRACE_SECONDS = 2.0
"""Where all are far, a moment's delay leaves nobody behind; a run waits no longer in all."""
NEAR_GRACE_SECONDS = 60.0
"""The same for a disk of this machine, which may be busy, and hang when it is a network's."""
FORGET_SECONDS = 10.0


class Writer:
    """Writes to every lane that keeps up; the others are completed once there is a good copy.

    What is behind and idle takes the next volume all the same, so that less is left to complete.
    What was begun is in `note` before its first byte is written. `committed` are the names of
    those that have the whole backup, with `manifest_bytes` as its manifest.
    """

    def __init__(self, project: Project, lanes: Lanes, note: RunNote, *, spool: Path) -> None:
        self.packs: dict[str, StoredArtifact] = {}
        self.committed: list[str] = []
        self.manifest_bytes = b""
        self._project = project
        self._lanes = lanes
        self._note = note
        self._folder = spool
        self._spool = Spool(spool)
        self._room = Room(project.volume_size)
        self._unread: dict[str, set[str]] = {name: set() for name in lanes}
        self._grace = GRACE_SECONDS
        self._near_grace = NEAR_GRACE_SECONDS

    @property
    def keeping_up(self) -> list[Lane]:
        """The lanes that have taken everything so far, or will without being waited for."""
        return [lane for lane in self._lanes.values() if not (lane.failure or lane.behind)]

    def store(self, artifact: Artifact, on_bytes: Callable[[int], None]) -> StoredArtifact:
        """Store one artifact, read to its end; raises its source's or the last lane's error.

        Where the manifest would have no room for it, BackupError as soon as that is certain.
        """
        self._room.take(artifacts=1)
        if artifact.pool is None:
            path = f"{self._note.name}/{self._file_name(artifact)}"
        else:
            path = f"pool/{artifact.pool}/{self._file_name(artifact)}"
            self._note.begin_pack(path)
        raw = Measured(self._opened(artifact), hashing=False, on_bytes=on_bytes)
        stored = Measured(
            stored_form(raw, encrypt=self._encrypt(artifact), workers=self._project.jobs)
        )
        volumes = []
        try:
            for volume in cut(stored, spool=self._folder, volume_size=self._project.volume_size):
                self._room.take(volumes=1)
                self._send(volume_name(path, volume.index), volume.file)
                volumes.append(Volume(size=volume.size, sha256=volume.sha256))
        finally:
            stored.close()
        result = StoredArtifact(
            name=artifact.name,
            path=path,
            raw_size=raw.size,
            stored_size=stored.size,
            sha256=stored.sha256,
            volumes=tuple(volumes),
        )
        if artifact.pool is not None:
            self.packs[artifact.pool] = result
        return result

    def commit(self, manifest: Manifest) -> bytes:
        """Confirm what each destination holds, then write its manifest: the commit mark.

        Those that fell behind are completed as soon as one has the whole backup. Returns the
        manifest's bytes; raises the last lane's error when no destination has it in the end.
        """
        data = manifests.dump(manifest, key=self._project.signing_key, derive_key=derive_key)
        self.manifest_bytes = data
        self._note.begin_commit()
        in_time = self.keeping_up
        late = [lane for lane in self._lanes.values() if lane.behind]
        for lane in in_time:
            lane.submit(partial(self._commit, manifest, data, lane))
        self._lanes.wait(lambda: bool(self.committed) or not any(lane.waiting for lane in in_time))
        if self.committed:
            for lane in late:
                lane.submit(partial(self._commit, manifest, data, lane))
        self._lanes.wait(lambda: not self._lanes.busy)
        if not self.committed:
            raise self._lanes.failures()[-1]
        return data

    def make_room(self) -> dict[str, BackupError]:
        """Return why destinations lack the backup; where that will last, remove its parts.

        A full disk must not stay full of what is no backup. The note still says what they lack.
        """
        failures = {name: lane.failure for name, lane in self._lanes.items() if lane.failure}
        self._removed_from(self._lanes[name] for name, error in failures.items() if error.permanent)
        return failures

    def forget(self) -> None:
        """Remove what this run has written, as well as it can be done in a few seconds.

        What cannot be removed now is in the note, and a later run does it. Where a lane was about
        to commit, and does so, that copy stays, and the note says that the others lack theirs.
        """
        removed = self._removed_from(self._lanes.values())
        for name in removed if not self.committed else ():
            self._note.settled(name)

    def _removed_from(self, lanes: Iterable[Lane]) -> list[str]:
        """Remove what this run has written; return the names of those where that was done."""
        removed: list[str] = []

        def remove(lane: Lane, destination: Destination) -> None:
            if lane.name in self.committed:
                return
            self._note.remove_from(destination)
            removed.append(lane.name)

        chosen = [*lanes]
        for lane in chosen:
            lane.drop()
            lane.restart()
            lane.submit(partial(remove, lane))
        self._lanes.wait(lambda: not any(lane.waiting for lane in chosen), FORGET_SECONDS)
        return removed

    def start_again(self) -> None:
        """Remove the volumes written so far, for another try of the same backup."""
        for lane in self._lanes.values():
            lane.drop()
            lane.submit(self._remove)
        self.packs = {}
        self._room = Room(self._project.volume_size)
        for unread in self._unread.values():
            unread.clear()

    def _send(self, name: str, file: Path) -> None:
        """Queue a volume for each lane that keeps up, and for each other one that is idle."""
        self._leave_behind_who_is_slow()
        lanes = self.keeping_up
        if not lanes:
            raise self._lanes.failures()[-1]
        lanes += [
            lane
            for lane in self._lanes.values()
            if lane.behind and not lane.waiting and not lane.failure
        ]
        shared = self._spool.take(file, users=len(lanes))
        for lane in lanes:
            lane.submit(partial(self._put, lane.name, name, shared.path), shared.release)

    def _leave_behind_who_is_slow(self) -> None:
        """Wait while no lane has room; where one has, the others are behind.

        One on this machine gets what is left of its grace: it is what the others are completed
        from. Where all are far, so do they: to complete one from another far one costs more than
        to wait for it.
        """

        def full() -> list[Lane]:
            return [lane for lane in self.keeping_up if lane.waiting >= DEPTH]

        def near() -> list[Lane]:
            return [lane for lane in self.keeping_up if not lane.destination.remote]

        self._lanes.wait(lambda: len(full()) < len(self.keeping_up) or not self.keeping_up)
        if near():
            self._near_grace -= self._waited(lambda: not {*near()} & {*full()}, self._near_grace)
        else:
            self._grace -= self._waited(lambda: not full(), self._grace)
        for lane in full():
            lane.behind = True
            lane.drop()

    def _waited(self, condition: Callable[[], bool], grace: float) -> float:
        """Wait for what a lane does, no longer than the grace; return for how many seconds."""
        began = time.monotonic()
        self._lanes.wait(condition, grace)
        return time.monotonic() - began

    def _put(self, lane: str, name: str, file: Path, destination: Destination) -> None:
        destination.put(name, file)
        if not destination.vouches_for(name, file):
            self._unread[lane].add(name)

    def _remove(self, destination: Destination) -> None:
        self._note.remove_from(destination)

    def _commit(
        self, manifest: Manifest, data: bytes, lane: Lane, destination: Destination
    ) -> None:
        def others() -> list[Destination]:
            good = [o for o in self._lanes.values() if o is not lane and not (o.error or o.behind)]
            return [o.destination for o in sorted(good, key=lambda o: o.destination.remote)]

        complete(
            self._project,
            lane.name,
            manifest,
            data,
            others=others,
            unread=self._unread[lane.name].__contains__,
            work=self._folder,
        )
        self.committed.append(lane.name)
        self._note.settled(lane.name, committed=True)
        put_recovery_program(lane.name, destination)

    def _opened(self, artifact: Artifact) -> Reader:
        """Open it; what nobody here can read again is parsed now, while it passes."""
        encryption = self._project.encryption
        reader = artifact.open()
        if encryption is None or encryption.opens(encryption.key_fingerprint):
            return reader
        return Checked(reader, artifact.check)

    def _encrypt(self, artifact: Artifact) -> Stage | None:
        if self._project.encryption is None:
            return None
        return partial(self._project.encryption.encrypt, readable_here=artifact.read_again)

    def _file_name(self, artifact: Artifact) -> str:
        encryption = self._project.encryption
        return f"{artifact.name}{SUFFIX}{encryption.suffix if encryption else ''}"


def new_id() -> str:
    """Return a fresh identifier, 16 hexadecimal digits."""
    return secrets.token_hex(8)
