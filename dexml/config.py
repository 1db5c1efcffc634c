"""The configuration: every key with its type, default and meaning, read from YAML files and command-line words.

`load_config(["configs/x.yaml"], ["--lr", "1e-4"])` gives one frozen `Config`, or one `ConfigError` that lists every
problem with its file and line. Keys and files of DEXML (arXiv 2310.10636) load unchanged. Light: imports no torch.
"""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import ValidationError, model_validator

from dexml.configchecks import conflicts, located_conflicts, reads_states, resolved_side
from dexml.configkeys import FAMILIES, FIELDS, Keys
from dexml.configkeys.features import FeatureKeys
from dexml.configmessages import config_help, misfit, unknown_key
from dexml.yamlfiles import Entry, interpolate, read_files, scalar

__all__ = ["CHECKOUT", "FIELDS", "Config", "ConfigError", "Keys", "config_help", "load_config", "parse_command_line"]

CHECKOUT = Path(__file__).resolve().parents[1]  # the folder that holds train.py

# Keys that a run may change when it resumes: they name, show or schedule work, what is learned stays the same.
# Where learning starts (resume_path, trn_shorty) and what chooses the model (select_on_test) are not among them.
_NO_EFFECT_ON_RESULTS = {
    *("project", "expname", "desc", "data_root", "results_root", "tracker", "log_interval", "eval_topk", "eval_bsz"),
    *("save", "save_interval", "save_keep", "resume", "num_threads", "num_processes", "grad_checkpointing", "compile"),
    *("gc_bsz", "gc_bsz_x", "token_budget", "memory_budget", "tile_rows", "tile_cols", "profile"),
    *("predict_mode", "knn_k", "knn_weight", "knn_tau"),
}

# DEXML's dumped config.yaml mixes these facts about the run with the keys; they are skipped.
_RUN_FACTS = {
    *("DATA_DIR", "OUT_DIR", "numy", "num_gpu", "device", "amp", "use_grad_scaler", "hostname", "exp_start_time"),
    *("embs_dim", "wandb_id", "nnz"),
}


class ConfigError(ValueError):
    """What is wrong with a configuration: one line a problem, each naming its file and line or its --key."""


class Config(Keys):
    """A whole, consistent configuration. Make one with `load_config`."""

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        problems = [text for _, text in conflicts(self)]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def data_dir(self) -> Path:
        """Folder of the data set."""
        return Path(self.data_root, self.dataset)

    @property
    def out_dir(self) -> Path:
        """Folder of the run: results_root/project/dataset/expname."""
        return Path(self.results_root, self.project, self.dataset, self.expname)

    @property
    def tokenizer_name(self) -> str:
        """`tf_token_type`, else `tf` where files are at hand, else DEXML's choice by name (see that key)."""
        if self.tf_token_type:
            return self.tf_token_type
        if self.tf.startswith("package:") or Path(self.tf).is_dir():
            return self.tf
        known = {"roberta": "roberta-base", "bert": "bert-base-uncased"}
        return next((tokenizer for part, tokenizer in known.items() if part in self.tf), self.tf)

    @property
    def resolved_label_side(self) -> str:
        """all, in-batch, shortlist or bank: `label_side` with auto worked out."""
        return resolved_side(self)

    @property
    def pooled_layers(self) -> int:
        """Layers whose vectors are joined, as heads with layers of their own read them; 0 for an embedding."""
        return self.doc_layers if self.net in FAMILIES[FeatureKeys] and not self.reads_states else 0

    @property
    def reads_states(self) -> bool:
        """Whether the head reads the state of every token, not one vector a text."""
        return reads_states(self)

    @property
    def learns_from_none(self) -> bool:
        """Whether a point without labels is trained on: it says of every label that it is false."""
        return self.net == "plt" or self.reads_states

    @property
    def has_bilstm(self) -> bool:
        """Whether a BiLSTM reads the words: `text_encoder` with auto worked out."""
        return self.text_encoder == "bilstm" or (self.text_encoder == "auto" and self.reads_states)

    @property
    def pooled_segments(self) -> int:
        """Parts of a text whose means are joined to those: as many as make a second vector of the same width."""
        return self.pooled_layers if self.net == "lightxml" and self.lxml_tokens != "none" else 0

    @property
    def normalizes(self) -> bool:
        """Whether the vector of a text has length 1."""
        return self.norm_embs and not self.pooled_layers

    def to_dict(self) -> dict[str, Any]:
        """Every key and its value, in the order of the documentation."""
        return self.model_dump()

    def dump(self, path: str | Path) -> None:
        """Write every key as YAML that `load_config` reads back to an equal Config. Atomic; makes the folder."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        unfinished.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True), encoding="utf-8")
        unfinished.replace(path)

    def changed(self, other: "Config") -> list[str]:
        """Keys whose values differ and that matter for results: what a run may not change when it resumes."""
        mine, others = self.to_dict(), other.to_dict()
        return [key for key in mine if mine[key] != others[key] and key not in _NO_EFFECT_ON_RESULTS]


def parse_command_line(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments at the first that starts with `-`: (files, override words)."""
    cut = next((index for index, word in enumerate(argv) if word.startswith("-")), len(argv))
    return list(argv[:cut]), list(argv[cut:])


def load_config(files: str | Path | Sequence[str | Path], overrides: Mapping[str, Any] | Sequence[str] = ()) -> Config:
    """Merge YAML files in order, then overrides (a mapping, or words such as `--lr 1e-4` and `--lr=1e-4`), and check.

    Raises ConfigError with one line for each problem of the whole load.
    """
    paths = [files] if isinstance(files, str | Path) else list(files)
    entries, problems = read_files(paths, CHECKOUT)
    complete = not problems
    extra, wrong_words = _override_entries(overrides)
    entries = {key: entry for key, entry in entries.items() if key not in _RUN_FACTS | set(extra)} | extra
    problems += wrong_words + [unknown_key(key, entry) for key, entry in entries.items() if key not in FIELDS]
    entries = interpolate({key: entry for key, entry in entries.items() if key in FIELDS}, _defaults())
    keys, misfits = _typed(entries)
    problems += [misfit(key, entry) for key, entry in entries.items() if key in misfits]
    if complete:  # a missing file must not be reported as all the keys it would have set
        problems += located_conflicts(keys, misfits, entries)
    if problems:
        raise ConfigError("\n".join(problems))
    return Config(**keys.model_dump())


def _defaults() -> dict[str, Any]:
    return {key: field.default for key, field in FIELDS.items()}


def _override_entries(overrides: Mapping[str, Any] | Sequence[str]) -> tuple[dict[str, Entry], list[str]]:
    if isinstance(overrides, Mapping):
        return {key: Entry(value, _spelling(value), f"--{key}") for key, value in overrides.items()}, []
    entries: dict[str, Entry] = {}
    problems: list[str] = []
    words = deque(overrides)
    while words:
        name, equals, text = words.popleft().partition("=")
        if not name.startswith("--"):
            problems.append(f"{name}: expected --key value; files come before the first option")
        elif not equals and (not words or words[0].startswith("--")):
            problems.append(f"{name}: needs a value, as in {name} VALUE")
        else:
            text = text if equals else words.popleft()
            entries[name[2:]] = Entry(scalar(text), text, name)
    return entries, problems


def _spelling(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | float | Path) else None


def _typed(entries: Mapping[str, Entry]) -> tuple[Keys, set[str]]:
    """The keys with their types, and the names of those whose value does not fit (these stay at their default)."""
    raw = {key: _raw(key, entry) for key, entry in entries.items()}
    try:
        return Keys(**raw), set()
    except ValidationError as error:
        misfits = {str(detail["loc"][0]) for detail in error.errors()}
    return Keys(**{key: value for key, value in raw.items() if key not in misfits}), misfits


def _raw(key: str, entry: Entry) -> Any:
    """What the type of `key` is checked against: the spelling for texts and switches, YAML's value for numbers."""
    kind, default = FIELDS[key].annotation, FIELDS[key].default
    if entry.value is None or str(entry.value).lower() in ("none", "null"):
        if NoneType in get_args(kind):
            return None
        if "none" in (default, *get_args(kind)):
            return "none"
        if default == "":
            return ""
    as_written = kind in (str, bool) or get_origin(kind) is Literal or isinstance(entry.value, bool)
    return entry.text if as_written and entry.value is not None and entry.text is not None else entry.value
