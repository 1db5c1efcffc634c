"""Shortlists in files: written block by block, kept in checkpoints by a second name, mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from dexml.data.files import link
from dexml.distributed import World
from dexml.labels.listfile import LISTS, NEXT, map_lists, write_lists
from dexml.labels.policy import Shortlist

IDS = np.array([[4, 5, -1], [0, -1, -1], [-1, -1, -1], [7, 1, 2], [3, 2, -1]])


def write(folder: Path, ids: np.ndarray = IDS, name: str = LISTS) -> None:
    write_lists(World(), folder / name, ids.shape, np.array_split(ids, 3))


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def side(folder: Path) -> Shortlist:
    folder.mkdir(exist_ok=True)
    return Shortlist(3, 0, folder, World())


def test_lists_come_back_as_they_were_found(tmp_path: Path) -> None:
    write(tmp_path)
    lists = map_lists(tmp_path / LISTS)
    assert isinstance(lists, np.memmap) and lists.dtype == np.int32
    assert np.array_equal(lists, IDS)
    assert names(tmp_path) == [LISTS]


def test_the_lists_of_before_stay_until_all_new_ones_are_there(tmp_path: Path) -> None:
    write(tmp_path)

    def parts():  # type: ignore[no-untyped-def]
        yield IDS[:2]
        assert np.array_equal(map_lists(tmp_path / LISTS), IDS)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_lists(World(), tmp_path / LISTS, IDS.shape, parts())
    assert np.array_equal(map_lists(tmp_path / LISTS), IDS)


def test_a_checkpoint_keeps_its_lists_when_others_are_mined(tmp_path: Path) -> None:
    run, saved = side(tmp_path / "run"), tmp_path / "saved"
    saved.mkdir()
    write(run.folder)
    run.use_mined()
    run.save(saved)
    write(run.folder, IDS[::-1])
    run.use_mined()
    assert np.array_equal(run.lists, IDS[::-1])  # type: ignore[arg-type]
    other = side(tmp_path / "other")
    other.load(saved)
    assert np.array_equal(other.lists, IDS)  # type: ignore[arg-type]
    run.load(saved)
    run.load(saved)  # the file in use is that of the checkpoint already
    assert np.array_equal(map_lists(run.folder / LISTS), IDS)
    assert names(run.folder) == [LISTS]


def test_what_a_kill_left_under_two_names_is_not_written_into(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / f".{LISTS}.tmp").hardlink_to(tmp_path / LISTS)
    before = map_lists(tmp_path / LISTS)
    write(tmp_path, IDS[::-1])
    assert np.array_equal(before, IDS)
    assert np.array_equal(map_lists(tmp_path / LISTS), IDS[::-1])


def test_where_the_disk_has_no_links_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError("not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write(tmp_path)
    link(tmp_path / LISTS, tmp_path / "copy.npy")
    assert not (tmp_path / LISTS).samefile(tmp_path / "copy.npy")
    assert np.array_equal(map_lists(tmp_path / "copy.npy"), IDS)


def test_lists_to_come_are_waited_for_and_kept_in_checkpoints(tmp_path: Path) -> None:
    run, saved = side(tmp_path / "run"), tmp_path / "saved"
    saved.mkdir()
    write(run.folder)
    run.use_mined()
    run.coming = lambda: write(run.folder, IDS[::-1], NEXT)
    run.save(saved)
    other = side(tmp_path / "other")
    other.load(saved)
    for one in (run, other):
        assert np.array_equal(one.lists, IDS)  # type: ignore[arg-type]
        one.use_coming()
        assert np.array_equal(one.lists, IDS[::-1])  # type: ignore[arg-type]
        assert one.coming is None and names(one.folder) == [LISTS]


def test_nothing_mined_leaves_nothing_and_given_lists_come_back(tmp_path: Path) -> None:
    run = side(tmp_path / "run")
    empty, given = tmp_path / "empty", tmp_path / "given"
    for folder in (empty, given):
        folder.mkdir()
    run.save(empty)
    assert not names(empty)
    run.lists = csr_matrix(np.eye(4, 6, dtype=np.float32))
    run.save(given)
    other = side(tmp_path / "other")
    other.load(given)
    assert isinstance(other.lists, csr_matrix) and (other.lists != run.lists).nnz == 0
    other.load(empty)
    assert other.lists is None
