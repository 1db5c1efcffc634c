"""A directory is there as a whole or not at all, and tells when it was changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dexml.training.directory import CheckpointError, remove_directory, verify, write_directory


def fill(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "one.txt").write_text(text)
        (folder / "inner" / "two.txt").write_text(text * 2)

    return write


def test_a_written_directory_is_whole_and_nothing_else_stays(tmp_path: Path) -> None:
    write_directory(tmp_path / "made", fill("a"))
    verify(tmp_path / "made")
    assert (tmp_path / "made" / "inner" / "two.txt").read_text() == "aa"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_second_writing_replaces_the_first(tmp_path: Path) -> None:
    write_directory(tmp_path / "made", fill("a"))
    write_directory(tmp_path / "made", fill("b"))
    verify(tmp_path / "made")
    assert (tmp_path / "made" / "one.txt").read_text() == "b"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("left", [".made.tmp", ".made.old.tmp"])
def test_what_a_killed_writer_left_does_not_stand_in_the_way(tmp_path: Path, left: str) -> None:
    write_directory(tmp_path / "made", fill("a"))
    (tmp_path / left).mkdir()
    (tmp_path / left / "junk").write_text("x")
    write_directory(tmp_path / "made", fill("b"))
    verify(tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_failing_fill_leaves_the_old_directory_and_no_rest(tmp_path: Path) -> None:
    write_directory(tmp_path / "made", fill("a"))

    def fail(folder: Path) -> None:
        (folder / "one.txt").write_text("half")
        raise OSError("No space left on device")

    for name in ("made", "new"):
        with pytest.raises(OSError, match="No space"):
            write_directory(tmp_path / name, fail)
    verify(tmp_path / "made")
    assert (tmp_path / "made" / "one.txt").read_text() == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_an_io_error_of_safetensors_is_an_os_error_that_names_the_directory(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        save_file({"x": torch.zeros(3)}, folder / "absent" / "model.safetensors")

    with pytest.raises(OSError, match="made"):
        write_directory(tmp_path / "made", fail)
    assert not list(tmp_path.iterdir())


def damage_byte(folder: Path) -> None:
    content = bytearray((folder / "inner" / "two.txt").read_bytes())
    content[0] ^= 1
    (folder / "inner" / "two.txt").write_bytes(content)


def truncate(folder: Path) -> None:
    (folder / "one.txt").write_bytes((folder / "one.txt").read_bytes()[:-1])


def delete(folder: Path) -> None:
    (folder / "one.txt").unlink()


@pytest.mark.parametrize("harm", [damage_byte, truncate, delete])
def test_every_damage_is_noticed_and_names_the_file(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    write_directory(tmp_path / "made", fill("abc"))
    harm(tmp_path / "made")
    with pytest.raises(CheckpointError, match=r"(one|two)\.txt: missing or changed"):
        verify(tmp_path / "made")


def test_any_flipped_bit_of_the_manifest_is_noticed(tmp_path: Path) -> None:
    write_directory(tmp_path / "made", fill("abc"))
    manifest = tmp_path / "made" / "manifest.json"
    whole = manifest.read_bytes()
    missed = []
    for place, byte in enumerate(whole):
        if chr(byte).isspace():
            continue  # white space between the values carries nothing
        manifest.write_bytes(whole[:place] + bytes([byte ^ 1]) + whole[place + 1 :])
        try:
            verify(tmp_path / "made")
            missed.append(place)
        except CheckpointError:
            pass
    assert not missed


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"a": 1}', '{"a": {"size": 1}}'])
def test_a_folder_of_something_else_is_no_checkpoint(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"no readable manifest\.json"):
        verify(tmp_path)


def test_a_folder_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        verify(tmp_path / "step-00000007")


def test_a_removed_directory_leaves_nothing(tmp_path: Path) -> None:
    write_directory(tmp_path / "made", fill("a"))
    remove_directory(tmp_path / "made")
    assert not list(tmp_path.iterdir())


def test_a_removal_that_is_cut_off_leaves_nothing_under_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_directory(tmp_path / "made", fill("a"))

    def killed(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise KeyboardInterrupt

    monkeypatch.setattr("dexml.training.directory.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_directory(tmp_path / "made")
    assert not (tmp_path / "made").exists()
