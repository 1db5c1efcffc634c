"""YAML reading: places of values, `__dependency__`, merging, flattening, interpolation, and what can be wrong."""

from pathlib import Path
from typing import Any

import pytest

from dexml.yamlfiles import Entry, interpolate, read_files, scalar


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return name


def values(*files: str, root: Path = Path("elsewhere")) -> dict[str, Any]:
    entries, problems = read_files(files, root)
    assert problems == []
    return {key: entry.value for key, entry in entries.items()}


def problems_of(*files: str, root: Path = Path("elsewhere")) -> list[str]:
    return read_files(files, root)[1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5.e-5", 5e-5),
        ("1.0e-4", 1e-4),
        ("-2E3", -2000.0),
        (".5", 0.5),
        ("1", 1),
        ("1_000", 1000),
        ("0.05", 0.05),
        ("True", True),
        ("no", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("none", "none"),
        ("010", "010"),  # octal in YAML 1.1
        ("1:30", "1:30"),  # base 60 in YAML 1.1
        ("2024-13-45", "2024-13-45"),  # a broken date in YAML 1.1
        ("num_pos", "num_pos"),
        ("package:a/b", "package:a/b"),
    ],
)
def test_scalars_mean_the_same_in_a_file_and_on_the_command_line(here: Path, text: str, value: object) -> None:
    in_file = values(write("a.yaml", f"key: {text}\n"))["key"]
    assert in_file == value and type(in_file) is type(value)
    assert scalar(text) == value and type(scalar(text)) is type(value)


def test_an_entry_keeps_its_spelling_and_its_place(here: Path) -> None:
    entries, _ = read_files([write("a.yaml", "# note\nlr: 5.e-5\n\ndesc: >\n  two\n  lines\nlist: [1, a]\n")], here)
    assert entries["lr"] == Entry(5e-5, "5.e-5", "a.yaml:2")
    assert entries["desc"].where == "a.yaml:4"
    assert entries["list"] == Entry([1, "a"], None, "a.yaml:7")


def test_quoted_numbers_stay_text(here: Path) -> None:
    assert values(write("a.yaml", "a: '5'\nb: \"yes\"\n")) == {"a": "5", "b": "yes"}


def test_a_dependency_is_loaded_before_the_file_that_names_it(here: Path) -> None:
    write("c/base.yaml", "a: 1\nb: 1\nc: 1\n")
    write("c/mid.yaml", "__dependency__: c/base.yaml\nb: 2\nc: 2\n")
    write("c/other.yaml", "d: 4\n")
    top = write("c/top.yaml", "c: 3\n__dependency__: c/mid.yaml, c/other.yaml\n")
    assert values(top) == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_the_later_file_wins_and_comes_last(here: Path) -> None:
    first, second = write("1.yaml", "a: 1\nb: 1\n"), write("2.yaml", "a: 2\n")
    assert list(values(first, second).items()) == [("b", 1), ("a", 2)]
    assert list(values(second, first).items()) == [("a", 1), ("b", 1)]


def test_each_file_brings_its_own_dependencies_again_as_in_dexml(here: Path) -> None:
    write("base.yaml", "a: 0\nb: 0\n")
    first = write("1.yaml", "__dependency__: base.yaml\na: 1\n")
    second = write("2.yaml", "__dependency__: base.yaml\nb: 2\n")
    assert values(first, second) == {"a": 0, "b": 2}


def test_a_nested_mapping_replaces_the_earlier_one_whole_then_is_flattened(here: Path) -> None:
    first = write("1.yaml", "opt: {a: 1, b: {c: 2}}\n")
    second = write("2.yaml", "opt:\n  d:\n    e: 5\n")
    assert values(first) == {"opt_a": 1, "opt_b_c": 2}
    assert values(first, second) == {"opt_d_e": 5}


def test_a_nested_and_a_flat_key_that_collide_are_an_error(here: Path) -> None:
    first, second = write("1.yaml", "topk_K: 5\n"), write("2.yaml", "a: 1\ntopk:\n  K: 3\n")
    assert problems_of(first, second) == [
        "2.yaml:3: 'topk_K' is already set at 1.yaml:1, once nested, once flat: keep one"
    ]


def test_a_dependency_is_searched_beside_train_py_when_the_working_directory_lacks_it(here: Path) -> None:
    write("checkout/configs/base.yaml", "a: 1\nb: 1\n")
    top = write("mine.yaml", "__dependency__: configs/base.yaml\nb: 2\n")
    assert values(top, root=here / "checkout") == {"a": 1, "b": 2}
    write("configs/base.yaml", "a: 7\n")
    assert values(top, root=here / "checkout") == {"a": 7, "b": 2}


def test_a_missing_dependency_says_where_it_was_searched(here: Path) -> None:
    top = write("mine.yaml", "\n__dependency__: configs/gone.yaml\n")
    (problem,) = problems_of(top, root=here / "checkout")
    assert problem.startswith("mine.yaml:2: __dependency__: no file configs/gone.yaml")
    assert str(here) in problem and str(here / "checkout") in problem


def test_a_circle_of_dependencies_is_named(here: Path) -> None:
    write("a.yaml", "__dependency__: b.yaml\n")
    write("b.yaml", "\n__dependency__: a.yaml\nk: 1\n")
    assert problems_of("a.yaml") == ["b.yaml:2: circular __dependency__: a.yaml -> b.yaml -> a.yaml"]


@pytest.mark.parametrize("value", ["[a.yaml]", "5", "{a: b}"])
def test_a_dependency_must_be_text(here: Path, value: str) -> None:
    (problem,) = problems_of(write("a.yaml", f"__dependency__: {value}\n"))
    assert problem == "a.yaml:1: __dependency__: expected paths separated by commas"


def test_an_empty_file_and_an_empty_dependency_set_nothing(here: Path) -> None:
    assert values(write("a.yaml", ""), write("b.yaml", "__dependency__:\n")) == {}


def test_duplicate_keys_name_both_lines(here: Path) -> None:
    assert problems_of(write("a.yaml", "lr: 1\nbsz: 2\nlr: 3\nopt:\n  a: 1\n  a: 2\n")) == [
        "a.yaml:3: 'lr' is already set on line 1",
        "a.yaml:6: 'a' is already set on line 5",
    ]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "bad.yaml:3: "),
        ("a: 1\n b: 2\n", "bad.yaml:2: "),
        ("a: 1\n---\nb: 2\n", "bad.yaml:2: "),
        ("a: 1\nb: !!python/object/apply:os.system ['echo']\n", "bad.yaml:2: "),
        ("a: &x 1\nb: *x\n", "bad.yaml:2: "),
        ("- a\n- b\n", "bad.yaml:1: expected lines 'key: value'"),
        ("just words\n", "bad.yaml:1: expected lines 'key: value'"),
        ("a: 1\n[1]: 2\n", "bad.yaml:2: a key must be a word"),
        ("a: 1\nb: \x07\n", "bad.yaml: "),
        ("a: !!int x\n", "bad.yaml: "),
    ],
)
def test_broken_yaml_names_file_and_line(here: Path, text: str, start: str) -> None:
    (problem,) = problems_of(write("bad.yaml", text))
    assert problem.startswith(start) and "\n" not in problem


def test_a_file_that_is_no_text_a_folder_and_a_missing_file_are_one_line_each(here: Path) -> None:
    Path("latin.yaml").write_bytes(b"desc: \xe9t\xe9\n")
    problems = problems_of("latin.yaml", "gone.yaml", str(here))
    assert [problem.split(":")[0] for problem in problems] == ["latin.yaml", "gone.yaml", str(here)]
    assert "UTF-8" in problems[0] and problems[1] == f"gone.yaml: no such file (working directory {here})"


def test_a_byte_order_mark_is_dropped(here: Path) -> None:
    Path("bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert values("bom.yaml") == {"a": 1}


def test_brackets_are_filled_once_from_final_values_of_any_type() -> None:
    entries = {
        "expname": Entry("run_[loss]_[tau]_[flag]_[epochs]", "", "x"),
        "loss": Entry("soft[tau]", "", "x"),
        "tau": Entry(0.5, "0.5", "--tau"),
        "flag": Entry(True, "yes", "x"),
        "desc": Entry("see [this]", "", "x"),
        "list": Entry(["[tau]"], None, "x"),
    }
    filled = interpolate(entries, {"epochs": 3, "tau": 9.0})
    assert filled["expname"].value == filled["expname"].text == "run_soft[tau]_0.5_True_3"
    assert filled["loss"].value == "soft0.5"
    assert filled["desc"].value == "see [this]"
    assert filled["list"].value == ["[tau]"] and filled["tau"] is entries["tau"]
