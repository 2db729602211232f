"""The contract of destinations."""

from __future__ import annotations

import contextlib
import re
import time
from datetime import timedelta
from pathlib import Path

from mipyme_backup.destinations import Destination, Entry
from mipyme_backup.destinations.listing import FEW, Layout
from mipyme_backup.errors import DestinationError, ObjectMissingError
from mipyme_backup.process import CHUNK
from mipyme_backup.testing.readers import raising, read_whole

LAYOUT = Layout(
    files=frozenset({"program"}),
    folders=re.compile(r"(months/)?app_[0-9]"),
    above=frozenset({"months"}),
    stored=re.compile(r"[0-9]"),
    prefixes=("app_", "months/", "program"),
)


class DestinationContract:
    """What every destination holds to; derive, and give the fixture ``destination``."""

    many = 30
    """How many objects one listing must bring; more than a page, where a service has pages."""

    def _put(self, destination: Destination, name: str, data: bytes, folder: Path) -> None:
        file = folder / "spooled"
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_bytes(data)
        destination.put(name, file)

    def test_check_passes_where_it_can_be_written_to(self, destination: Destination) -> None:
        destination.check()
        destination.check()

        assert list(destination.entries()) == []
        assert list(destination.entries(".")) == []

    def test_probe_leaves_no_object(self, destination: Destination) -> None:
        destination.check()

        destination.probe()

        assert list(destination.entries()) == []

    def test_its_clock_is_about_ours(self, destination: Destination) -> None:
        """Run the suite where both have the same clock, or one that NTP keeps."""
        destination.check()

        assert destination.skew is None or abs(destination.skew) < timedelta(seconds=5)

    def test_place_is_told_in_one_line(self, destination: Destination) -> None:
        place = destination.describe()

        assert place and place.isprintable()

    def test_no_more_is_free_than_there_is(self, destination: Destination) -> None:
        destination.check()

        free, total = destination.free_space(), destination.total_space()

        assert free is None or total is None or 0 <= free <= total

    def test_what_was_put_is_read_back(self, destination: Destination, tmp_path: Path) -> None:
        destination.check()
        for size in (0, 1, CHUNK - 1, CHUNK, 2 * CHUNK + 7):
            data = (bytes(range(256)) * (size // 256 + 1))[:size]
            self._put(destination, f"backup/object.{size}", data, tmp_path)

            assert read_whole(destination.open(f"backup/object.{size}")) == data
            assert destination.size(f"backup/object.{size}") == size

    def test_put_replaces_what_was_there(self, destination: Destination, tmp_path: Path) -> None:
        destination.check()
        self._put(destination, "backup/object", b"long, old content", tmp_path)

        self._put(destination, "backup/object", b"new", tmp_path)

        assert read_whole(destination.open("backup/object")) == b"new"
        assert [entry.size for entry in destination.entries()] == [3]

    def test_put_works_in_any_order_of_names(
        self, destination: Destination, tmp_path: Path
    ) -> None:
        destination.check()
        names = ["b/c/d", "a", "b/a", "b/c/a"]
        for name in names:
            self._put(destination, name, name.encode(), tmp_path)

        assert [entry.name for entry in destination.entries()] == sorted(names)

    def test_an_object_outlives_the_file_it_was_made_of(
        self, destination: Destination, tmp_path: Path
    ) -> None:
        destination.check()
        self._put(destination, "backup/object", b"content", tmp_path)

        (tmp_path / "spooled").unlink()

        assert read_whole(destination.open("backup/object")) == b"content"

    def test_put_leaves_the_given_file_alone(
        self, destination: Destination, tmp_path: Path
    ) -> None:
        destination.check()
        self._put(destination, "backup/object", b"content", tmp_path)

        destination.delete("backup/object")

        assert (tmp_path / "spooled").read_bytes() == b"content"

    def test_a_missing_object_is_told_apart_from_other_failures(
        self, destination: Destination, tmp_path: Path
    ) -> None:
        destination.check()
        self._put(destination, "backup/object", b"content", tmp_path)
        for name in ("missing", "backup/missing", "missing/object", "backup/object/below"):
            with raising(ObjectMissingError):
                read_whole(destination.open(name))
            assert destination.size(name) is None

    def test_reading_is_bounded_and_may_stop_early(
        self, destination: Destination, tmp_path: Path
    ) -> None:
        destination.check()
        self._put(destination, "backup/object", b"x" * 100_000, tmp_path)
        reader = destination.open("backup/object")

        first = reader.read(10)
        reader.close()
        reader.close()

        assert 0 < len(first) <= 10
        assert read_whole(destination.open("backup/object"), 777) == b"x" * 100_000

    def test_after_its_end_a_reader_stays_at_its_end(
        self, destination: Destination, tmp_path: Path
    ) -> None:
        destination.check()
        self._put(destination, "backup/object", b"content", tmp_path)
        reader = destination.open("backup/object")
        while reader.read(CHUNK):
            pass

        assert reader.read(CHUNK) == b""
        reader.close()

    def test_entries_come_in_order_with_their_sizes(
        self, destination: Destination, tmp_path: Path
    ) -> None:
        destination.check()
        names = ["a/x", "a-b/x", "a.b", "a/b/c", "a0", "A", "a_b", "z%2Fz", "k=v@1+1"]
        for name in names:
            self._put(destination, name, b"#" * len(name), tmp_path)

        listed = list(destination.entries())

        assert listed == [Entry(name=name, size=len(name)) for name in sorted(names)]

    def test_a_prefix_is_one_of_names_not_of_folders(
        self, destination: Destination, tmp_path: Path
    ) -> None:
        destination.check()
        for name in ("app/1", "app2/1", "ap", "other/app/1"):
            self._put(destination, name, b"content", tmp_path)

        assert [e.name for e in destination.entries("app")] == ["app/1", "app2/1"]
        assert [e.name for e in destination.entries("app/")] == ["app/1"]
        assert list(destination.entries("app/2")) == []

    def test_a_listing_is_whole(self, destination: Destination, tmp_path: Path) -> None:
        destination.check()
        names = [f"backup/volume.{number:05d}" for number in range(self.many)]
        for name in names:
            self._put(destination, name, b"", tmp_path)

        assert [entry.name for entry in destination.entries()] == names

    def test_a_listing_by_layout_has_what_is_ours_and_counts_the_rest(
        self, destination: Destination, tmp_path: Path
    ) -> None:
        destination.check()
        ours = ["app_1/1", "app_1/2", "months/app_2/1", "program"]
        foreign = ["app_x/1", "app_1/x", "months/x/1", "other", "zoo/1"]
        for name in (*ours, *foreign):
            self._put(destination, name, name.encode(), tmp_path)

        listed = destination.listing(LAYOUT)

        assert [*listed.entries] == [Entry(name=name, size=len(name)) for name in ours]
        assert 2 <= listed.foreign.count <= len(foreign)  # one that asks for prefixes sees less
        assert len(listed.foreign.names) <= FEW

    def test_delete_removes_the_named_object_only(
        self, destination: Destination, tmp_path: Path
    ) -> None:
        destination.check()
        for name in ("app/1", "app/10", "app2/1"):
            self._put(destination, name, b"content", tmp_path)

        destination.delete("app/1")

        assert [entry.name for entry in destination.entries()] == ["app/10", "app2/1"]
        with raising(ObjectMissingError):
            read_whole(destination.open("app/1"))

    def test_deleting_what_is_gone_is_no_error(
        self, destination: Destination, tmp_path: Path
    ) -> None:
        destination.check()
        self._put(destination, "backup/object", b"content", tmp_path)
        for name in ("backup/object", "backup/object", "missing/object"):
            destination.delete(name)

        assert list(destination.entries()) == []

    def test_names_that_lead_elsewhere_are_refused(
        self, destination: Destination, tmp_path: Path
    ) -> None:
        destination.check()
        self._put(destination, "backup/object", b"content", tmp_path)
        for name in ("", "/", "/x", "../x", "a/../x", "a/..", "./x", "a//b", "a/", "a\0b"):
            for call in (destination.open, destination.size, destination.delete):
                with raising(DestinationError):
                    call(name)
            with raising(DestinationError):
                self._put(destination, name, b"content", tmp_path)

        assert [entry.name for entry in destination.entries()] == ["backup/object"]

    def test_free_space_is_a_number_of_bytes_or_unknown(self, destination: Destination) -> None:
        destination.check()
        free = destination.free_space()

        assert free is None or free >= 0

    def test_it_vouches_for_no_other_bytes_than_those_it_holds(
        self, destination: Destination, tmp_path: Path
    ) -> None:
        destination.check()
        self._put(destination, "backup/object", b"content", tmp_path)
        for other in (b"changed", b"longer content"):
            (tmp_path / "spooled").write_bytes(other)
            self._vouches_not(destination, "backup/object", tmp_path / "spooled")
        destination.delete("backup/object")

        self._vouches_not(destination, "backup/object", tmp_path / "spooled")

    def _vouches_not(self, destination: Destination, name: str, file: Path) -> None:
        """A destination may say that it cannot tell, or that the bytes are other ones."""
        vouched = False
        with contextlib.suppress(DestinationError):
            vouched = destination.vouches_for(name, file)
        assert not vouched

    def test_sweeping_leaves_what_is_whole(self, destination: Destination, tmp_path: Path) -> None:
        destination.check()
        for name in ("app/1", "app/2", "other"):
            self._put(destination, name, b"content", tmp_path)

        for prefix in ("app/", "app/1", "nothing/", ""):
            destination.sweep(prefix)

        assert [entry.name for entry in destination.entries()] == ["app/1", "app/2", "other"]

    def test_sending_keeps_to_the_bandwidth(self, destination: Destination, tmp_path: Path) -> None:
        destination.check()
        destination.bandwidth = 400_000
        began = time.monotonic()

        self._put(destination, "backup/object", bytes(520_000), tmp_path)

        # A second's worth may have been saved up. What is not sent away is not held back.
        assert time.monotonic() - began >= (0.3 if destination.remote else 0)
        assert destination.size("backup/object") == 520_000
