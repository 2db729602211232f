"""Bringing media back to a remote storage, and being killed at every call meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import storages

from mipyme_backup.errors import DamagedError, PreflightError, RestoreError
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Where
from mipyme_backup.sources.media import RemoteMediaTarget
from tests.unit.sources import media_trees
from tests.unit.sources.media_trees import (
    INDEX,
    Saved,
    collect,
    media_source,
    opener,
    target_of,
    write,
)
from tests.unit.sources.remote_storages import (
    LONG_AGO,
    Death,
    MortalStorage,
    RenamingObjects,
    fill,
    held,
    memory,
    ours,
    source,
    target,
)

NEW = {
    "same": b"same",
    "folder/same": b"same",
    "changes": b"new",
    "grows/and/changes": b"new" * 700,
    "twin": b"new",
    "only/new": b"1",
    "empty": b"",
}
LATER = LONG_AGO + timedelta(days=1)
OLD = {
    "same": b"same",
    "folder/same": b"same",
    "changes": b"old",
    "grows/and/changes": b"old",
    "goes": b"gone",
    "folder/goes": b"",
    "twin": b"old and longer",
}


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[MortalStorage]:
    monkeypatch.setattr("mipyme_backup.sources.media.remote.tree.PAUSE_SECONDS", 0.01)
    with memory() as made:
        yield made


@pytest.fixture
def saved(storage: MortalStorage) -> Saved:
    """A backup of the new files; the storage holds the old ones now."""
    fill(storage, NEW)
    saved = collect(source())
    make_old(storage)
    storage.calls.clear()
    return saved


@pytest.fixture(params=["copies", "renames"])
def moving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a file gets from one name to another."""
    if request.param == "renames":
        monkeypatch.setattr(
            "mipyme_backup.sources.media.remote.target.objects_in",
            lambda alias: RenamingObjects(storages[alias], alias),
        )


def make_old(storage: MortalStorage) -> None:
    for name in NEW.keys() - OLD.keys():
        storage.delete(name)
    changed = {name: data for name, data in OLD.items() if NEW.get(name) != data}
    fill(storage, changed, LATER)


def loaded(saved: Saved) -> RemoteMediaTarget:
    made = target()
    made.plan()
    made.load(saved.artifacts())
    assert made.check(saved.facts) == []
    return made


def again(made: RemoteMediaTarget) -> Any:
    state = json.loads(json.dumps(made.state))
    return media_source(storage=state["storage"]).restored_target(state, elsewhere=False)


def test_swap_and_undo_change_what_is_live_and_leave_nothing_else(
    storage: MortalStorage, saved: Saved
) -> None:
    made = loaded(saved)
    assert held(storage) == OLD

    made.swap()
    assert held(storage) == NEW

    again(made).undo()
    assert held(storage) == OLD

    again(made).remove_replaced()
    assert held(storage) == OLD
    assert ours(storage) == []


def test_what_is_live_already_is_neither_sent_nor_touched(
    storage: MortalStorage, saved: Saved
) -> None:
    made = loaded(saved)
    made.swap()

    touched = {name for verb, name in storage.calls if verb in ("save", "delete", "open")}
    assert not touched & {"same", "folder/same"}
    sent = [name for verb, name in storage.calls if verb == "save" and "restoring" in name]
    assert len(sent) == 5 + 2  # and the index, and a mark


def test_files_that_are_all_gone_come_back(storage: MortalStorage, saved: Saved) -> None:
    for name in held(storage):
        storage.delete(name)
    made = target()
    assert not made.has_live()

    made = loaded(saved)
    made.swap()

    assert held(storage) == NEW
    made.undo()
    assert held(storage) == {}


def test_the_index_of_the_next_backup_is_right(
    storage: MortalStorage, saved: Saved, tmp_path: Path
) -> None:
    loaded(saved).swap()

    following = collect(source(), saved)

    assert following.new_packs == []
    assert media_trees.texts(media_trees.restored(following, tmp_path / "out")) == NEW


def test_media_of_a_folder_comes_into_a_storage(storage: MortalStorage, tmp_path: Path) -> None:
    for name, content in NEW.items():
        write(tmp_path / "media", name, content)
    (tmp_path / "media" / "hollow").mkdir()
    saved = media_trees.save(tmp_path / "media")
    fill(storage, OLD)

    loaded(saved).swap()

    assert held(storage) == NEW


def test_large_files_are_sent_whole_and_to_every_name(
    storage: MortalStorage, saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mipyme_backup.sources.media.remote.upload.TOGETHER_BYTES", 2)

    loaded(saved).swap()

    assert held(storage) == NEW


@pytest.mark.parametrize("together_bytes", [2, 10_000])
def test_a_content_that_is_not_what_was_saved_is_refused(
    storage: MortalStorage,
    saved: Saved,
    together_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mipyme_backup.sources.media.remote.upload.TOGETHER_BYTES", together_bytes)
    packs = {pack: data.replace(b"new" * 700, b"bad" * 700) for pack, data in saved.packs.items()}

    with pytest.raises(DamagedError, match="grows/and/changes"):
        target().load(Saved(index=saved.index, packs=packs).artifacts())

    assert held(storage) == OLD
    target().discard()
    assert ours(storage) == []


def test_a_pack_that_lacks_is_an_error(storage: MortalStorage, saved: Saved) -> None:
    with pytest.raises(RestoreError, match="are in none of its packs"):
        target().load({INDEX: opener(saved.index)})


def test_a_file_that_was_lost_beside_is_found_by_the_check(
    storage: MortalStorage, saved: Saved
) -> None:
    made = loaded(saved)
    storage.delete(".mipyme_backup_restoring_id/files/0/1")

    problems = [str(problem) for problem in made.check(saved.facts)]

    assert any("files were restored, the backup has 7" in problem for problem in problems)


def test_a_file_that_changes_between_load_and_swap_stops_it(
    storage: MortalStorage, saved: Saved
) -> None:
    made = loaded(saved)
    fill(storage, {"same": b"not the same"})

    with pytest.raises(RestoreError, match="same was changed in the storage"):
        made.swap()

    assert held(storage) == OLD | {"same": b"not the same"}
    made.discard()
    assert ours(storage) == []


def test_what_is_uploaded_after_the_swap_survives_an_undo(
    storage: MortalStorage, saved: Saved
) -> None:
    made = loaded(saved)
    made.swap()
    fill(storage, {"fresh": b"upload"})

    made.undo()

    assert held(storage) == OLD | {"fresh": b"upload"}


def test_a_file_that_the_site_deleted_after_the_swap_is_no_hindrance_to_an_undo(
    storage: MortalStorage, saved: Saved
) -> None:
    made = loaded(saved)
    made.swap()
    storage.delete("changes")
    storage.delete("only/new")

    made.undo()

    assert held(storage) == OLD


def test_a_file_that_the_site_changed_after_the_swap_is_no_hindrance_to_an_undo(
    storage: MortalStorage, saved: Saved
) -> None:
    made = loaded(saved)
    made.swap()
    fill(storage, {"changes": b"changed once more", "only/new": b"and this"})

    made.undo()

    assert held(storage) == OLD


@pytest.mark.usefixtures("moving")
@pytest.mark.parametrize("name", ["changes", "goes"])
def test_a_file_that_changes_after_the_swap_has_begun_stops_it_and_stays(
    storage: MortalStorage, saved: Saved, name: str
) -> None:
    made = loaded(saved)

    def meddle(verb: str, called: str) -> None:
        if verb == "save" and called.endswith("/begun"):
            storage.fails = lambda verb, name: None
            fill(storage, {name: b"an upload in between"})

    storage.fails = meddle
    with pytest.raises(RestoreError, match=f"{name} was changed in the storage"):
        made.swap()

    made.discard()

    assert held(storage) == OLD | {name: b"an upload in between"}


def test_an_object_that_is_also_called_like_a_folder_is_kept_when_it_is_replaced(
    storage: MortalStorage, saved: Saved
) -> None:
    fill(storage, {"empty": b"an object", "empty/below": b"and one below"})
    before = held(storage)
    made = loaded(saved)

    made.swap()

    assert held(storage) == NEW
    made.undo()
    assert held(storage) == before


def test_objects_that_could_not_be_saved_stay_through_a_restore(
    storage: MortalStorage, saved: Saved
) -> None:
    odd = {"folder//twice": b"1", "a": b"2", "a/below": b"3"}
    storage.files |= {name: (data, LATER) for name, data in odd.items()}
    made = loaded(saved)

    made.swap()

    assert held(storage) == NEW | {"folder//twice": b"1", "a": b"2"}
    made.undo()
    assert held(storage) == OLD | odd


def test_there_is_nothing_to_undo_once_it_was_removed(storage: MortalStorage, saved: Saved) -> None:
    made = loaded(saved)
    made.swap()
    made.remove_replaced()

    with pytest.raises(RestoreError, match="no longer below"):
        made.undo()

    assert held(storage) == NEW
    assert ours(storage) == []


def test_names_that_the_storage_cannot_hold_are_refused_with_a_way_out(
    storage: MortalStorage, tmp_path: Path
) -> None:
    write(tmp_path / "media", b"\xff.jpg", b"1")
    write(tmp_path / "media", b"back\\slash", b"1")
    saved = media_trees.save(tmp_path / "media")

    with pytest.raises(RestoreError, match="cannot hold 2 names") as caught:
        target().load(saved.artifacts())

    assert "--to-media" in str(caught.value.hint)


def test_a_storage_that_cannot_be_written_to_is_told_by_the_plan(storage: MortalStorage) -> None:
    def fail(verb: str, name: str) -> None:
        if verb == "save":
            raise PermissionError("read only")

    storage.fails = fail

    with pytest.raises(PreflightError, match="Cannot write to the storage memory"):
        target().plan()


def test_the_plan_says_that_files_change_one_by_one(storage: MortalStorage) -> None:
    bare = " ".join(map(str, target().plan()))
    fill(storage, OLD)
    plan = " ".join(map(str, target().plan()))

    assert "file by file" in bare and "file by file" in plan
    assert ".mipyme_backup_before_id/" in plan
    assert ".mipyme_backup_before_id/" not in bare
    assert ours(storage) == []


def test_a_storage_that_renames_what_it_saves_is_refused(
    storage: MortalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "get_available_name", lambda name, max_length=None: name + "_1")

    with pytest.raises(PreflightError, match="under another name"):
        target().plan()

    assert ours(storage) == []


def test_a_restore_whose_storage_is_unknown_now_says_so(saved: Saved) -> None:
    state = {**loaded(saved).state, "storage": "renamed"}

    with pytest.raises(RestoreError, match="renamed") as caught:
        media_source(storage="renamed").restored_target(state, elsewhere=False)

    assert "KEEP_REPLACED_HOURS" in str(caught.value.hint)


# Killed at every call

Action = Callable[[Any], object]


def swapped(made: RemoteMediaTarget) -> None:
    made.swap()


def died(
    storage: MortalStorage, state: Any, action: Action, *, torn: bool = False
) -> Iterator[RemoteMediaTarget]:
    """Run an action on a storage as it was, killed before its first call, its second, and so on.

    Yields a target of a later process for each; ends when the action comes to its end.
    """
    for number in range(1, 10_000):
        storage.files = dict(state)
        storage.revive(number, torn=torn)
        made = target()
        try:
            action(made)
        except Death:
            storage.revive()
            yield again(made)
        else:
            storage.revive()
            assert number > 20
            return


@pytest.mark.usefixtures("moving")
@pytest.mark.parametrize(
    ("afterwards", "torn"),
    [("swap", False), ("swap", True), ("discard", True), ("undo and swap", False)],
)
def test_a_swap_killed_at_any_call_ends_all_new_or_all_old(
    storage: MortalStorage, saved: Saved, afterwards: str, torn: bool
) -> None:
    loaded(saved)
    state = dict(storage.files)

    for later in died(storage, state, swapped, torn=torn):
        if afterwards == "swap":
            later.swap()
            assert held(storage) == NEW
            later.undo()
            assert held(storage) == OLD
        elif afterwards == "discard":
            later.discard()
            assert held(storage) == OLD
            assert not [name for name in ours(storage) if "restoring" in name]
        else:
            later.undo()
            assert held(storage) == OLD
            again(later).swap()
            assert held(storage) == NEW


@pytest.mark.usefixtures("moving")
@pytest.mark.parametrize("torn", [False, True])
def test_an_undo_killed_at_any_call_ends_all_old(
    storage: MortalStorage, saved: Saved, torn: bool
) -> None:
    loaded(saved).swap()
    state = dict(storage.files)

    for later in died(storage, state, lambda made: made.undo(), torn=torn):
        later.undo()
        assert held(storage) == OLD
        again(later).swap()
        assert held(storage) == NEW


@pytest.mark.parametrize("action", ["load", "remove_replaced"])
def test_killed_at_any_other_call_nothing_live_changes(
    storage: MortalStorage, saved: Saved, action: str
) -> None:
    actions: dict[str, Action] = {
        "load": lambda made: made.load(saved.artifacts()),
        "remove_replaced": lambda made: made.remove_replaced(),
    }
    live = OLD
    if action == "remove_replaced":
        loaded(saved).swap()
        live = NEW
    state = dict(storage.files)

    for later in died(storage, state, actions[action], torn=True):
        assert held(storage) == live
        actions[action](later)
        assert held(storage) == live
        if action == "load":
            assert later.check(saved.facts) == []
            later.discard()
        assert ours(storage) == []


def test_an_undo_after_a_removal_that_was_killed_is_whole_or_refused(
    storage: MortalStorage, saved: Saved
) -> None:
    loaded(saved).swap()
    state = dict(storage.files)

    for later in died(storage, state, lambda made: made.remove_replaced()):
        try:
            later.undo()
        except RestoreError:
            assert held(storage) == NEW
        else:
            assert held(storage) in (OLD, NEW)


def test_a_swap_that_failed_can_be_tried_again(storage: MortalStorage, saved: Saved) -> None:
    made = loaded(saved)
    broken = [ConnectionError("reset")]

    def fail(verb: str, name: str) -> None:
        if verb == "save" and name == "changes" and broken:
            raise broken.pop()

    storage.fails = fail
    with pytest.raises(RestoreError, match="reset"):
        made.swap()

    made.swap()

    assert held(storage) == NEW


def test_readers_are_closed(storage: MortalStorage, saved: Saved) -> None:
    readers: list[media_trees.Bytes] = []

    def opened(data: bytes) -> Callable[[], Reader]:
        def open_() -> Reader:
            readers.append(media_trees.Bytes(data))
            return readers[-1]

        return open_

    artifacts = {f"pool/{pack}": opened(data) for pack, data in saved.packs.items()}
    target().load({**artifacts, INDEX: opened(saved.index)})

    assert readers
    assert all(reader._stream.closed for reader in readers)


def test_a_folder_is_restored_to_where_it_is_asked_for(
    storage: MortalStorage, saved: Saved, tmp_path: Path
) -> None:
    made = target_of(media_source(storage="memory"), "id", Where(to_directory=tmp_path / "out"))

    made.plan()
    made.load(saved.artifacts())

    assert media_trees.texts(tmp_path / "out") == NEW
    assert held(storage) == OLD
