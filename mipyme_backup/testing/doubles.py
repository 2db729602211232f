"""Real parts for tests: a source of given bytes, and a destination that fails by plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mipyme_backup.destinations import Destination, Entry
from mipyme_backup.destinations.listing import Layout, Listing
from mipyme_backup.errors import DestinationError
from mipyme_backup.messages import Message
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Artifact, Source, View
from mipyme_backup.streams.digest import drain
from mipyme_backup.testing.readers import BytesReader, read_whole

Verb = Literal["check", "put", "open", "size", "entries", "delete", "free_space"]
Action = Literal["raise", "raise_after", "short_write", "truncate", "corrupt", "empty"]

_SUITED: Mapping[Action, frozenset[str]] = {
    "raise": frozenset({"check", "put", "open", "size", "entries", "delete", "free_space"}),
    "raise_after": frozenset({"put", "open", "delete"}),
    "short_write": frozenset({"put"}),
    "truncate": frozenset({"put", "open"}),
    "corrupt": frozenset({"put", "open"}),
    "empty": frozenset({"entries"}),
}


class FakeSource(Source):
    """A source of the given artifacts: bytes by name, warnings for each, and an error at the end.

    `packs` names the artifacts that are shared, with their pack ids. With `error`, the last
    artifact gives all its bytes and then fails, as a dump does that dies at the last moment.
    """

    def __init__(
        self,
        artifacts: Mapping[str, bytes],
        *,
        name: str = "fake",
        packs: Mapping[str, str] | None = None,
        warnings: Sequence[Message] = (),
        error: Exception | None = None,
    ) -> None:
        self.name = name
        self._artifacts = dict(artifacts)
        self._packs = dict(packs or {})
        self._warnings = tuple(warnings)
        self._error = error

    def artifacts(self, view: View) -> Iterator[Artifact]:
        for number, (name, data) in enumerate(self._artifacts.items(), start=1):
            error = self._error if number == len(self._artifacts) else None
            yield Artifact(
                name=name,
                open=lambda data=data, error=error: BytesReader(data, error=error),  # type: ignore[misc]
                check=drain,
                facts=lambda data=data: {"bytes": len(data)},  # type: ignore[misc]
                warnings=lambda: self._warnings,
                pool=self._packs.get(name),
                size_hint=len(data),
            )


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong at the calls number `first` to `last` (from 1) of `verb`.

    ``raise`` fails at once, ``raise_after`` once the work is done (an answer that got lost);
    ``short_write`` leaves half of the object behind and fails; ``truncate`` and ``corrupt``
    store or read half of it, or one byte changed, and report success; ``empty`` lists nothing.
    """

    verb: Verb
    action: Action = "raise"
    first: int = 1
    last: int | None = None
    error: Exception | None = None

    def __post_init__(self) -> None:
        if self.verb not in _SUITED[self.action]:
            raise ValueError(f"{self.verb} cannot {self.action}")

    def hits(self, verb: Verb, call: int) -> bool:
        """Say whether this is the verb and one of the calls that go wrong."""
        return verb == self.verb and self.first <= call <= (self.last or self.first)


class FaultyDestination(Destination):
    """`inner`, with what `faults` plan for it; `calls` counts the calls of each verb so far."""

    def __init__(self, inner: Destination, *faults: Fault) -> None:
        self.remote = inner.remote
        self.fetches_whole = inner.fetches_whole
        self.calls: Counter[str] = Counter()
        self._inner = inner
        self._faults = faults

    def check(self) -> None:
        self._fault("check")
        self._inner.check()

    def probe(self) -> None:
        self._fault("check")
        self._inner.probe()

    def put(self, name: str, file: Path) -> None:
        fault = self._fault("put")
        if fault is None or fault.action == "raise_after":
            self._inner.put(name, file)
        else:
            damaged = file.with_name(f"{file.name}.damaged")
            damaged.touch(mode=0o600)
            damaged.write_bytes(_damaged(file.read_bytes(), fault.action))
            try:
                self._inner.put(name, damaged)
            finally:
                damaged.unlink()
        self._raise_after(fault)

    def open(self, name: str) -> Reader:
        fault = self._fault("open")
        reader = self._inner.open(name)
        if fault is None:
            return reader
        data = read_whole(reader)
        self._raise_after(fault)
        return BytesReader(_damaged(data, fault.action))

    def size(self, name: str) -> int | None:
        self._fault("size")
        return self._inner.size(name)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        if self._fault("entries") is None:
            yield from self._inner.entries(prefix)

    def listing(self, layout: Layout) -> Listing:
        return Listing() if self._fault("entries") else self._inner.listing(layout)

    def delete(self, name: str) -> None:
        fault = self._fault("delete")
        self._inner.delete(name)
        self._raise_after(fault)

    def vouches_for(self, name: str, file: Path) -> bool:
        return self._inner.vouches_for(name, file)

    def sweep(self, prefix: str) -> None:
        self._inner.sweep(prefix)

    def free_space(self) -> int | None:
        self._fault("free_space")
        return self._inner.free_space()

    def total_space(self) -> int | None:
        return self._inner.total_space()

    def describe(self) -> str:
        return self._inner.describe()

    def _fault(self, verb: Verb) -> Fault | None:
        self.calls[verb] += 1
        for fault in self._faults:
            if fault.hits(verb, self.calls[verb]):
                if fault.action == "raise":
                    raise _error_of(fault)
                return fault
        return None

    def _raise_after(self, fault: Fault | None) -> None:
        if fault is not None and fault.action in {"raise_after", "short_write"}:
            raise _error_of(fault)


def _error_of(fault: Fault) -> Exception:
    text = "planned fault of %(verb)s"
    return fault.error or DestinationError(text, permanent=False, verb=fault.verb)


def _damaged(data: bytes, action: Action) -> bytes:
    middle = len(data) // 2
    if action == "corrupt" and data:
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    return data[:middle]
