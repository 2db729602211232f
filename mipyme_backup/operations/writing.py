"""Writing one backup to its destinations: volumes as they are made, the manifest last."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from mipyme_backup import manifest as manifests
from mipyme_backup.destinations import Destination
from mipyme_backup.encryption.passphrase import derive_key
from mipyme_backup.errors import BackupError, DamagedError, DestinationError
from mipyme_backup.manifest import Manifest, StoredArtifact, Volume
from mipyme_backup.messages import _
from mipyme_backup.operations.damage import known_damage, note_damage
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.reading import check_stored
from mipyme_backup.private_files import make_folder, write_file
from mipyme_backup.process import CHUNK
from mipyme_backup.sources.base import Artifact
from mipyme_backup.streams.compress import SUFFIX
from mipyme_backup.streams.digest import Measured
from mipyme_backup.streams.pipeline import stored_form
from mipyme_backup.streams.volumes import cut, volume_name


class Writer:
    """Writes to every destination that still works; `failures` says why the others do not.

    What was begun is noted in `STATE_DIR` before its first byte is written, so that a later
    run can sweep what a killed one left (`sweep_unfinished`).
    """

    def __init__(
        self,
        project: Project,
        destinations: Mapping[str, Destination],
        *,
        backup_id: str,
        name: str,
        spool: Path,
    ) -> None:
        self.failures: dict[str, BackupError] = {}
        self.packs: dict[str, StoredArtifact] = {}
        self._project = project
        self._destinations = dict(destinations)
        self._name = name
        self._spool = spool
        self._note = _notes(project) / f"{backup_id}.json"
        self._written: list[str] = []
        self._write_note()

    @property
    def working(self) -> dict[str, Destination]:
        """The destinations that have taken everything so far."""
        return {
            name: destination
            for name, destination in self._destinations.items()
            if name not in self.failures
        }

    @contextlib.contextmanager
    def noting_failure(self, name: str) -> Iterator[None]:
        """Leave the destination `name` out from an error in the block on; the others go on."""
        try:
            yield
        except (DestinationError, DamagedError) as error:
            self.failures[name] = error

    def store(self, artifact: Artifact, on_bytes: Callable[[int], None]) -> StoredArtifact:
        """Store one artifact, read to its end; raises its source's or the last place's error."""
        if artifact.pool is None:
            path = f"{self._name}/{self._file_name(artifact)}"
        else:
            path = f"pool/{artifact.pool}/{self._file_name(artifact)}"
        raw = Measured(artifact.open(), hashing=False, on_bytes=on_bytes)
        encryption = self._project.encryption
        stored = Measured(
            stored_form(
                raw,
                encrypt=encryption.encrypt if encryption else None,
                workers=self._project.jobs,
            )
        )
        volumes = []
        try:
            if artifact.pool is not None:
                self._written.append(path)
                self._write_note()
            for volume in cut(stored, spool=self._spool, volume_size=self._project.volume_size):
                self._put(volume_name(path, volume.index), volume.file)
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

    def commit(self, manifest: Manifest, new_packs: Iterable[StoredArtifact]) -> bytes:
        """Read back what each destination holds, then write its manifest: the commit mark.

        Returns the manifest's bytes. Raises the last destination's error when none is left.
        """
        data = manifests.dump(manifest, key=self._project.signing_key, derive_key=derive_key)
        file = self._spool / manifests.FILE_NAME
        write_file(file, data)
        new = {pack.path for pack in new_packs}
        for name, destination in self.working.items():
            with self.noting_failure(name):
                for artifact in manifest.artifacts():
                    if artifact.path.startswith("pool/") and artifact.path not in new:
                        self._provide_pack(name, destination, artifact)
                    else:
                        self._read_back(destination, artifact)
                self._put_manifest(destination, manifest, file, data)
        self._none_left()
        file.unlink()
        self._note.unlink()
        return data

    def forget(self) -> None:
        """Remove what this run has written and not committed, as well as it can be done."""
        with contextlib.suppress(BackupError, OSError):
            _sweep_one(self._project, self._note)

    def start_again(self) -> None:
        """Remove the volumes written so far, for another try of the same backup."""
        self.forget()
        self._written = []
        self.packs = {}
        self._write_note()

    def _file_name(self, artifact: Artifact) -> str:
        encryption = self._project.encryption
        return f"{artifact.name}{SUFFIX}{encryption.suffix if encryption else ''}"

    def _put(self, name: str, file: Path) -> None:
        for destination_name, destination in self.working.items():
            with self.noting_failure(destination_name):
                destination.put(name, file)
        self._none_left()

    def _none_left(self) -> None:
        if not self.working:
            raise list(self.failures.values())[-1]

    def _read_back(self, destination: Destination, artifact: StoredArtifact) -> None:
        for problem in check_stored(destination, artifact):
            raise DestinationError(
                _("What was read back is not what was written: %(problem)s"),
                hint=_("Look at the disk or service of this destination."),
                problem=problem,
            )

    def _put_manifest(
        self, destination: Destination, manifest: Manifest, file: Path, data: bytes
    ) -> None:
        name = f"{manifest.name}/{manifests.FILE_NAME}"
        try:
            destination.put(name, file)
            self._read_back_manifest(destination, manifest, data)
        except (DestinationError, DamagedError):
            # What is reported as failed must not be found to be a backup later.
            with contextlib.suppress(BackupError):
                destination.delete(name)
            raise

    def _read_back_manifest(
        self, destination: Destination, manifest: Manifest, data: bytes
    ) -> None:
        reader = destination.open(f"{manifest.name}/{manifests.FILE_NAME}")
        try:
            stored = b"".join(iter(lambda: reader.read(CHUNK), b""))
        finally:
            reader.close()
        if stored != data:
            raise DestinationError(_("The manifest read back is not the one that was written."))

    def _provide_pack(self, name: str, destination: Destination, pack: StoredArtifact) -> None:
        """Make sure that a pack of an earlier backup is here; else copy it from elsewhere."""
        damaged = pack.path in known_damage(self._project).get(name, ())
        for path, volume in pack.volume_paths():
            if damaged or destination.size(path) != volume.size:
                self._copy_volume(destination, path, volume)
        if damaged:
            note_damage(self._project, name, damaged=(), sound=(pack.path,))

    def _copy_volume(self, destination: Destination, path: str, volume: Volume) -> None:
        for other in self.working.values():
            if other is destination or other.size(path) != volume.size:
                continue
            file = self._spool / "copy"
            reader = Measured(other.open(path))
            try:
                write_file(file, reader)
                if reader.sha256 == volume.sha256:
                    destination.put(path, file)
                    return
            finally:
                reader.close()
                file.unlink(missing_ok=True)
        raise DestinationError(
            _("No destination holds %(path)s, which this backup needs."),
            hint=_("Run verify_backups --all, then take another backup."),
            path=path,
        )

    def _write_note(self) -> None:
        make_folder(self._note.parent)
        note = {
            "name": self._name,
            "destinations": list(self._destinations),
            "packs": self._written,
        }
        temporary = self._note.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        write_file(temporary, json.dumps(note).encode())
        temporary.rename(self._note)


def sweep_unfinished(project: Project) -> None:
    """Remove what killed runs left on the destinations. Call it with the lock held.

    A destination where the manifest was written keeps everything. What is on one that is away
    is swept when it is back.
    """
    for note in _notes(project).glob("*.json"):
        _sweep_one(project, note)


def _sweep_one(project: Project, note: Path) -> None:
    run = json.loads(note.read_text())
    places = [project.destinations[n] for n in run["destinations"] if n in project.destinations]
    committed = away = False
    for destination in places:
        try:
            if destination.size(f"{run['name']}/{manifests.FILE_NAME}") is not None:
                committed = True
            else:
                _delete_all(destination, f"{run['name']}/")
        except DestinationError:
            away = True
    if away:
        return  # the manifest may be there, and need the packs
    for destination in places if not committed else ():
        for pack in run["packs"]:
            try:
                _delete_all(destination, f"{pack}.")
            except DestinationError:
                return
    note.unlink(missing_ok=True)


def _delete_all(destination: Destination, prefix: str) -> None:
    for entry in list(destination.entries(prefix)):
        destination.delete(entry.name)


def _notes(project: Project) -> Path:
    return project.state_dir / "runs"


def new_id() -> str:
    """Return a fresh identifier, 16 hexadecimal digits."""
    return secrets.token_hex(8)
