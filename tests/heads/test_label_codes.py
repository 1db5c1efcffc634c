"""Label codes: digits and back, lengths, orders, files; what cannot be is refused."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from dexml.config import ConfigError
from dexml.data.files import DataError
from dexml.heads.label_codes import LabelCodes
from dexml.heads.mhe_codes import alphabetical, automatic_lengths, by_frequency, lengths_of


def codes_of(*lengths: int, n: int | None = None, seed: int | None = None) -> LabelCodes:
    n = prod(lengths) if n is None else n
    order = np.arange(n) if seed is None else np.random.default_rng(seed).permutation(n)
    return LabelCodes(lengths, order, {"data": "abc"})


# --- digits


@pytest.mark.parametrize(("label", "digits"), [(0, (0, 0, 0)), (7, (0, 1, 2)), (42, (1, 3, 2)), (99, (3, 4, 4))])
def test_digits_are_those_of_a_mixed_radix_number(label: int, digits: tuple[int, ...]) -> None:
    codes = codes_of(4, 5, 5)
    assert codes.encode(np.array(label)).tolist() == list(digits)
    assert codes.decode(np.array(digits)) == label


@pytest.mark.parametrize("seed", [None, 1])
def test_every_label_comes_back(seed: int | None) -> None:
    codes = codes_of(4, 5, 5, n=97, seed=seed)
    assert codes.n_pads == 3
    assert codes.decode(codes.encode(np.arange(97))).tolist() == list(range(97))
    assert codes.decode(codes.digits(np.arange(97, 100))).tolist() == [-1] * 3
    assert codes.labels(np.array([[0, -1], [96, 97]])).tolist() == [[codes.label_of[0], -1], [codes.label_of[96], -1]]


def test_one_hot_digits_multiply_to_the_one_hot_code() -> None:
    first, second = torch.eye(2)[1], torch.eye(3)[1]
    assert torch.kron(first, second).argmax() == codes_of(2, 3).decode(np.array([1, 1])) == 4


def test_children_of_nodes() -> None:
    codes = codes_of(3, 2, 2, n=7)
    assert codes.n_nodes == (2, 4, 7)
    assert codes.children(0, np.array([0, 1])).tolist() == [[0, 1], [2, 3]]
    assert codes.children(1, np.array([[3, 0]])).tolist() == [[[6, -1], [0, 1]]]


# --- lengths


@pytest.mark.parametrize(
    ("n", "groups", "lengths", "pads"),
    [
        (10, 4, (4, 3), 2),
        (10, 7, (5, 2), 0),
        (7, 3, (3, 3), 2),
        (3956, 172, (172, 23), 0),
        (3956, 170, (165, 24), 4),
        (670_091, 8400, (8377, 80), 69),
        (2_812_281, 8761, (8761, 321), 0),
    ],
)
def test_lengths_of_a_number_of_groups(n: int, groups: int, lengths: tuple[int, int], pads: int) -> None:
    assert lengths_of(n, groups) == lengths
    assert prod(lengths) - n == pads < lengths[1]


@pytest.mark.parametrize("n_heads", [2, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 97, 4271, 30_011, 1_299_709])
@pytest.mark.parametrize("weight", [1.0, 7.8])
def test_automatic_lengths_hold_any_number_of_labels(n: int, n_heads: int, weight: float) -> None:
    lengths = automatic_lengths(n, n_heads, weight)
    assert len(lengths) == n_heads
    nodes = n
    for length in reversed(lengths):  # the pads of every level are fewer than the children of a node
        nodes, pads = -(-nodes // length), -nodes % length
        assert pads < length
    assert nodes == 1


def test_automatic_lengths_are_near_the_optimum() -> None:
    assert automatic_lengths(1_000_000) == (1000, 1000)
    assert automatic_lengths(1_000_000, 3) == (100, 100, 100)
    assert automatic_lengths(4271) == (65, 66)  # a prime: no divisor
    assert automatic_lengths(670_091, weight=75 * 400 / 3840) == (2287, 293)  # 2288 is best, 2287 leaves no pads


@pytest.mark.parametrize("lengths", [(3, 3), (10,), (0, 10), (10, -1)])
def test_lengths_without_room_are_refused(lengths: tuple[int, ...]) -> None:
    with pytest.raises(
        ConfigError, match="no room for 10 labels; give two or more lengths, each at least 1, whose product is 10"
    ):
        LabelCodes(lengths, np.arange(10))


def test_an_order_that_names_a_label_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="must name each of them once"):
        LabelCodes((2, 2), np.array([0, 1, 1]))


# --- orders


def test_labels_are_ordered_as_strings_or_by_frequency() -> None:
    assert alphabetical(["b", "10", "9", "b", "a"]).tolist() == [1, 2, 4, 0, 3]
    assert by_frequency(np.array([1, 5, 0, 5])).tolist() == [1, 3, 0, 2]


# --- files


def test_saved_codes_come_back(tmp_path: Path) -> None:
    codes = codes_of(3, 4, n=11, seed=5)
    path = tmp_path / "new" / "codes.safetensors"
    codes.save(path)
    found = LabelCodes.load(path, data="abc")
    assert found.hash == codes.hash
    assert found.lengths == (3, 4)
    assert found.meta == {"data": "abc"}
    assert found.label_of.tolist() == codes.label_of.tolist()


def test_the_hash_tells_orders_and_lengths_apart() -> None:
    made = [codes_of(3, 4), codes_of(4, 3), codes_of(3, 4, seed=1), codes_of(3, 4, seed=2), codes_of(3, 4, n=11)]
    assert len({codes.hash for codes in made}) == len(made)


def test_codes_of_other_data_are_refused(tmp_path: Path) -> None:
    codes_of(3, 4).save(tmp_path / "codes")
    with pytest.raises(DataError, match="was made for other data"):
        LabelCodes.load(tmp_path / "codes", data="another")


@pytest.mark.parametrize("fault", ["cut", "foreign", "missing", "changed", "no order"])
def test_broken_files_are_refused(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "codes"
    codes_of(3, 4).save(path)
    whole = path.read_bytes()
    match fault:
        case "cut":
            path.write_bytes(whole[:-8])
        case "foreign":
            save_file({"x": np.zeros(2)}, path)
        case "missing":
            path.unlink()
        case "changed":
            path.write_bytes(whole[:-16] + whole[-8:] + whole[-16:-8])
        case "no order":
            path.write_bytes(whole[:-8] + whole[-16:-8])
    with pytest.raises(DataError, match="codes"):
        LabelCodes.load(path)
