"""The contract of sources."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from mipyme_backup.messages import Message
from mipyme_backup.sources.base import Source, View
from mipyme_backup.testing.readers import read_whole


class SourceContract:
    """What every source holds to; give the fixtures ``source`` and ``view``."""

    def what_stays(self, name: str, data: bytes, facts: Mapping[str, Any]) -> Any:
        """Return what two readings of one view have in common; override what may differ."""
        return name, data, facts

    def test_preflight_gives_messages(self, source: Source) -> None:
        assert all(isinstance(message, Message) for message in source.preflight())

    def test_what_it_stands_for_are_sources_with_names(self, source: Source) -> None:
        parts = source.split()

        assert parts
        assert all(part.name for part in parts)
        assert len({part.name for part in parts}) == len(parts)

    def test_artifacts_have_names_that_are_safe_and_their_own(
        self, source: Source, view: View
    ) -> None:
        names = []
        for artifact in source.artifacts(view):
            read_whole(artifact.open())
            names.append((artifact.pool, artifact.name))

        assert names
        assert len(set(names)) == len(names)
        for pool, name in names:
            assert re.fullmatch(r"[A-Za-z0-9_%-][A-Za-z0-9._%+=@-]*", name), name
            assert "/" not in unquote(pool or "")

    def test_facts_and_warnings_can_be_written_down(self, source: Source, view: View) -> None:
        for artifact in source.artifacts(view):
            read_whole(artifact.open())
            facts = dict(artifact.facts())

            assert json.loads(json.dumps(facts)) == facts
            assert all(str(warning) for warning in artifact.warnings())

    def test_reading_is_bounded_and_stays_at_its_end(self, source: Source, view: View) -> None:
        for artifact in source.artifacts(view):
            reader = artifact.open()
            try:
                while piece := reader.read(1000):
                    assert len(piece) <= 1000
                assert reader.read(1000) == b""
            finally:
                reader.close()

    def test_one_view_gives_the_same_twice(self, source: Source, view: View) -> None:
        first, second = ([*self._saved(source, view)] for _turn in range(2))

        assert first == second

    def test_reading_may_stop_early(self, source: Source, view: View) -> None:
        artifacts = source.artifacts(view)
        reader = next(artifacts).open()
        reader.read(1)
        reader.close()
        reader.close()
        if isinstance(artifacts, Generator):
            artifacts.close()

        assert [*self._saved(source, view)]

    def _saved(self, source: Source, view: View) -> Iterator[Any]:
        for artifact in source.artifacts(view):
            data = read_whole(artifact.open())
            yield self.what_stays(artifact.name, data, dict(artifact.facts()))
