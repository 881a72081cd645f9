"""Places: local paths and remote addresses are files and folders alike."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import fsspec
import pytest

from dist_sched import StateError, checkpoint
from dist_sched._storage.pickles import TruncatedError
from dist_sched._storage.places import Place, reading
from helpers import save_dcp, save_torch, state_at


def test_a_local_place_is_named_by_its_path(tmp_path):
    assert str(tmp_path / "a") == str(Place.at(tmp_path).child("a"))


def test_a_remote_place_is_named_by_its_address():
    assert "memory:///run/a" == str(Place.at("memory://run").child("a"))


def test_a_place_is_printed_without_its_file_system():
    assert "Place(path='/run')" == repr(Place(fsspec.filesystem("memory"), "/run"))


@pytest.mark.parametrize("path", ["/run/stepX", "/run/stepX/"])
def test_a_place_has_the_last_part_of_its_path_as_name_and_the_rest_as_parent(path):
    place = Place(None, path)
    assert ("stepX", Place(None, "/run")) == (place.name, place.parent)


@pytest.mark.parametrize("path", ["/runs/X", "/runs/X/"])
def test_the_parent_of_a_folder_is_the_same_however_it_is_written(path):
    assert "/runs" == Place(None, path).parent.path


def test_the_names_in_a_folder_are_sorted_and_have_no_slash():
    listed = ["/run/stepX/", "/run/b", "/run/a"]
    files = SimpleNamespace(ls=lambda _path, **_options: listed)
    assert ["a", "b", "stepX"] == Place(files, "/run").names()


def test_a_folder_cannot_be_opened_or_measured(tmp_path):
    for use in (Place.open, Place.size):
        with pytest.raises(StateError, match="is not a file"):
            use(Place.at(tmp_path))


@pytest.mark.parametrize("path", [None, 7, "nosuch://bucket/run"])
def test_what_is_no_path_and_no_address_is_refused_with_its_value(path):
    with pytest.raises(StateError, match=f"path={path!r}: must be a path, or an address"):
        Place.at(path)


def test_a_part_is_read_and_nothing_else(tmp_path):
    (tmp_path / "a").write_bytes(b"abcdef")
    assert b"cd" == Place.at(tmp_path / "a").read(2, 2)
    assert b"ef" == Place.at(tmp_path / "a").read(4, 2)


@pytest.mark.parametrize("start, length", [(5, 2), (2**70, 1)])
def test_a_part_beyond_the_end_is_truncated(tmp_path, start, length):
    (tmp_path / "a").write_bytes(b"abcdef")
    with pytest.raises(TruncatedError, match=f"ends before byte {start + length}"):
        Place.at(tmp_path / "a").read(start, length)


def test_an_error_while_reading_keeps_its_class_and_names_the_place():
    with pytest.raises(TruncatedError, match=r"^x\.pt: too short"), reading("x.pt"):
        raise TruncatedError("too short")


def test_any_error_while_reading_is_a_state_error():
    with pytest.raises(StateError, match=r"^x\.pt: is malformed: KeyError: 'a'"), reading("x.pt"):
        raise KeyError("a")


def test_an_error_of_the_file_system_passes():
    with pytest.raises(PermissionError), reading("x.pt"):
        raise PermissionError


def test_an_error_of_the_file_system_is_a_state_error_of_read_state(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError("denied")

    save_torch({"s": state_at(60)}, tmp_path / "a.pt")
    monkeypatch.setattr(type(fsspec.filesystem("file")), "open", denied)
    with pytest.raises(StateError, match=r"a\.pt: cannot be read: denied"):
        checkpoint.read_state(tmp_path / "a.pt")


@pytest.mark.parametrize("path", ["nothing", "nothing.pt"])
def test_a_missing_path_is_a_state_error(tmp_path, path):
    with pytest.raises(StateError, match="does not exist"):
        checkpoint.read_state(tmp_path / path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(StateError, match="is not a file or a folder"):
        checkpoint.read_state(tmp_path / "a.pt")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("start", ["zip://a.pt::zip://no-file::", "zip://a.pt::file://"])
def test_a_pipe_behind_any_part_of_an_address_is_not_waited_for(tmp_path, start):
    os.mkfifo(tmp_path / "a.zip")
    address = f"{start}{tmp_path / 'a.zip'}"
    with pytest.raises(StateError, match=r"a\.zip' is not a file"):
        checkpoint.read_state(address)


@pytest.mark.parametrize("path", ["run/step-3", "run/step-3/", "./run", Path("run")])
def test_relative_paths_and_trailing_slashes_are_the_same_folder(tmp_path, monkeypatch, path):
    save_dcp({"scheduler": state_at(60)}, tmp_path / "run" / "step-3")
    monkeypatch.chdir(tmp_path)
    assert state_at(60) == checkpoint.read_state(path)[0]


def test_an_address_is_read_as_a_path_is(tmp_path):
    folder = save_dcp({"app": {"scheduler": state_at(60)}}, tmp_path / "a")
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/bucket/run/step-6", recursive=True)
    memory.makedirs("/bucket/run/step-7")
    for address in ("memory://bucket/run/step-6", "memory://bucket/run"):
        found, where = checkpoint.read_state(address)
        assert (state_at(60), "app.scheduler") == (found, where.key)
        assert "memory:///bucket/run/step-6/.metadata" == where.path


def test_a_file_in_an_archive_is_read_by_its_address(tmp_path):
    save_torch({"s": state_at(60)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.pt", "b.pt")
    for address in (f"zip://b.pt::{tmp_path}/a.zip", f"zip://b.pt::file://{tmp_path}/a.zip"):
        assert state_at(60) == checkpoint.read_state(address)[0]


class Remembering(type(fsspec.filesystem("memory"))):
    """Remembers what it listed, as the file systems of object stores do."""

    protocol = "remembering"
    listed: ClassVar[dict] = {}

    def ls(self, path, detail=True, **options):
        key = path, detail
        if key not in self.listed:
            self.listed[key] = super().ls(path, detail=detail, **options)
        return self.listed[key]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("remembering://"))

    def invalidate_cache(self, path=None):
        del path
        self.listed.clear()


def test_a_checkpoint_that_came_after_a_listing_is_seen(tmp_path):
    fsspec.register_implementation("remembering", Remembering, clobber=True)
    for position in (5, 6):
        path = save_torch({"s": state_at(position)}, tmp_path / f"step-{position}.pt")
        fsspec.filesystem("memory").put(str(path), f"/grows/step-{position}.pt")
        assert position == checkpoint.read_state("remembering://grows")[0]["num_steps"]
