"""YAML files as DEXML reads them: `__dependency__` includes, later files win, nested keys flattened, `[key]` filled in.

Every value keeps its spelling and its place (`configs/x.yaml:12`): whoever checks it can say where it was written.
Nothing raises here: problems are collected, one line each, so that a user sees all of them at once.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

DEPENDENCY = "__dependency__"


@dataclass(frozen=True)
class Entry:
    """One setting as written: `value` by YAML's rules, `text` its spelling (None for a list), `where` it is."""

    value: Any
    text: str | None
    where: str


class _Loader(yaml.SafeLoader):
    """SafeLoader with plainer scalars: `1e-4` is a number; `010`, `1:30` and dates are text. No aliases."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 (a table of the base class, emptied)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not supported in config files", mark)
        return super().compose_node(parent, index)


for _tag, _pattern in [
    ("null", r"~|null|Null|NULL|"),
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)"),
    ("float", r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)"),
]:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), None)


def scalar(text: str) -> Any:
    """The value that `text` has in a YAML file, unquoted: bool, int, float, None or the text itself."""
    loader = _Loader("")
    return loader.construct_object(yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text))


def read_files(files: Sequence[str | Path], root: Path) -> tuple[dict[str, Entry], list[str]]:
    """Flat settings of all files and their dependencies, the most recent last, and the problems found.

    A dependency is a path relative to the working directory or, if not there, to `root`. It is loaded before the file
    that names it, every time it is named (as DEXML does): put shared settings first.
    """
    merged: dict[str, Entry] = {}
    problems: list[str] = []
    for file in files:
        if Path(file).exists():
            _merge(Path(file), root, (), merged, problems)
        else:
            problems.append(f"{file}: no such file (working directory {Path.cwd()})")
    flat = _flatten(merged, problems)
    return flat, list(dict.fromkeys(problems))


def _merge(file: Path, root: Path, chain: tuple[Path, ...], merged: dict[str, Entry], problems: list[str]) -> None:
    top = _read(file, problems)
    chain = (*chain, file)
    for path, where in _dependencies(top.pop(DEPENDENCY, None), root, problems):
        if path.resolve() in [parent.resolve() for parent in chain]:
            problems.append(f"{where}: circular {DEPENDENCY}: {' -> '.join(map(str, (*chain, path)))}")
        else:
            _merge(path, root, chain, merged, problems)
    for key, entry in top.items():
        merged.pop(key, None)  # re-inserted, so that the order of the result is the order of writing
        merged[key] = entry


def _dependencies(entry: Entry | None, root: Path, problems: list[str]) -> Iterator[tuple[Path, str]]:
    if entry is None or entry.value is None:
        return
    if not isinstance(entry.value, str):
        problems.append(f"{entry.where}: {DEPENDENCY}: expected paths separated by commas")
        return
    for name in filter(None, map(str.strip, entry.value.split(","))):
        found = next((path for path in (Path(name), root / name) if path.is_file()), None)
        if found is None:
            searched = f"in the working directory {Path.cwd()}, nor beside train.py in {root}"
            problems.append(f"{entry.where}: {DEPENDENCY}: no file {name} {searched}")
        else:
            yield found, entry.where


def _read(file: Path, problems: list[str]) -> dict[str, Entry]:
    """The top-level settings of one file; nested mappings stay dictionaries of entries."""
    try:
        loader = _Loader(file.read_text(encoding="utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            return {}
        if isinstance(node, yaml.MappingNode):
            return _mapping(node, loader, file, problems)
        problems.append(f"{file}:{node.start_mark.line + 1}: expected lines 'key: value'")
    except UnicodeDecodeError as error:
        problems.append(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.append(f"{file}:{mark.line + 1 if mark else 1}: broken YAML: {error.problem or error.context}")
    except (yaml.YAMLError, ValueError, OSError) as error:
        problems.append(f"{file}: cannot be read: {' '.join(str(error).split())}")
    return {}


def _mapping(node: yaml.MappingNode, loader: _Loader, file: Path, problems: list[str]) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value
        if not isinstance(key, str):
            problems.append(f"{file}:{line}: a key must be a word")
        elif key in entries:
            problems.append(f"{file}:{line}: '{key}' is already set on line {lines[key]}")
        else:
            lines[key] = line
            entries[key] = _entry(value_node, f"{file}:{line}", loader, file, problems)
    return entries


def _entry(node: yaml.Node, where: str, loader: _Loader, file: Path, problems: list[str]) -> Entry:
    if isinstance(node, yaml.MappingNode):
        return Entry(_mapping(node, loader, file, problems), None, where)
    text = node.value if isinstance(node, yaml.ScalarNode) else None
    return Entry(loader.construct_object(node, deep=True), text, where)


def _leaves(prefix: str, entries: Mapping[str, Entry]) -> Iterator[tuple[str, Entry]]:
    for key, entry in entries.items():
        if isinstance(entry.value, dict):
            yield from _leaves(f"{prefix}{key}_", entry.value)
        else:
            yield prefix + key, entry


def _flatten(entries: Mapping[str, Entry], problems: list[str]) -> dict[str, Entry]:
    flat: dict[str, Entry] = {}
    for key, entry in _leaves("", entries):
        if key in flat:
            hint = "once nested, once flat: keep one"
            problems.append(f"{entry.where}: '{key}' is already set at {flat[key].where}, {hint}")
        flat[key] = entry
    return flat


def interpolate(entries: Mapping[str, Entry], defaults: Mapping[str, Any]) -> dict[str, Entry]:
    """Replace `[key]` in every text by the final value of `key` (else its default), in one pass; unknown names stay."""
    values = {**defaults, **{key: entry.value for key, entry in entries.items()}}

    def fill(entry: Entry) -> Entry:
        if not isinstance(entry.value, str) or "[" not in entry.value:
            return entry
        text = re.sub(r"\[(\w+)\]", lambda match: str(values.get(match[1], match[0])), entry.value)
        return replace(entry, value=text, text=text)

    return {key: fill(entry) for key, entry in entries.items()}
