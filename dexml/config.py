"""The configuration: every key with its type, default and meaning, read from YAML files and command-line words.

`load_config(["configs/x.yaml"], ["--lr", "1e-4"])` gives one frozen `Config`, or one `ConfigError` that lists every
problem with its file and line. Keys and files of DEXML (arXiv 2310.10636) load unchanged. Light: imports no torch.
"""

import difflib
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dexml.yamlfiles import Entry, interpolate, read_files, scalar

CHECKOUT = Path(__file__).resolve().parents[1]  # the folder that holds train.py

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class ConfigError(ValueError):
    """What is wrong with a configuration: one line a problem, each naming its file and line or its --key."""


class Keys(BaseModel):
    """Every key, checked alone; `Config` adds the checks between keys. The text under a key is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    # The run: names and places
    project: str = "DEXML"
    """Name of the project. Results go to <results_root>/<project>/<dataset>/<expname>/."""
    expname: str = "dexml-exp"
    """Name of the run. Give every configuration its own; [key] stands for a value, as in run_[loss_criterion]_[tau]."""
    desc: str = "Transformer based dual encoder training"
    """Free description of the run. It changes nothing."""
    data_root: str = "Datasets"
    """Folder that holds the data sets."""
    results_root: str = "Results"
    """Folder that results are written under."""
    save: bool = True
    """Keep the best model and its predictions. Switch off for trials whose metrics are all you want."""
    save_interval: Natural = 1000
    """Steps between checkpoints that a killed run resumes from. 0 writes them only at evaluations."""
    save_keep: Count = 2
    """Checkpoints kept. Older ones are deleted."""
    resume: str = "auto"
    """Where a run starts: auto (its newest checkpoint if there is one), never, or the path of a checkpoint."""
    resume_path: str = ""
    """Weights to start from, with a new optimiser and schedule. For going on with a killed run use resume."""
    tracker: str = "none"
    """Experiment trackers by their Accelerate names, comma separated: tensorboard, wandb. none writes files only."""
    log_interval: Count = 10
    """Steps between lines of the log."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of initial weights, order, sampling and dropout. Same seed, machine and processes: same run."""

    # Data
    dataset: str = ""
    """Folder of the data set under data_root. Required; also selects the propensity constants."""
    data_manager: Literal["two-tower"] = "two-tower"
    """Data pipeline. Only two-tower (query texts and label texts) is available."""
    data_tokenization: Literal["offline", "online"] = "offline"
    """Tokenise once into files beside the texts (offline) or in every batch (online). Online costs time."""
    num_val_points: Natural = 0
    """Training points held out to choose the best model. 0 holds out none: the last model is the result."""
    select_on_test: bool = False
    """Choose the best model on the test set, as DEXML does. Only to reproduce its figures: it flatters them."""
    transpose_trn_dataset: bool = False
    """Train with labels as queries. Not supported in this version."""
    expand_multilabel_dataset: bool = False
    """Had no effect in DEXML. Rejected when true."""
    only_keep_trn_labels: bool = False
    """Drop labels that have no point. Not supported in this version."""
    trn_shorty: str = ""
    """First shortlist of every training point (.npz, points x labels). Without one, neg_type shorty mines it."""
    propensity_A: Annotated[float | None, Field(gt=0)] = None
    """Propensity constant A for PSP@k, set together with propensity_B. null: from a table by the data set's name."""
    propensity_B: Annotated[float | None, Field(ge=0)] = None
    """Propensity constant B for PSP@k, set together with propensity_A. null: from a table by the data set's name."""

    # Network
    net: Literal["dist-de-all", "dist-de-hnm"] = "dist-de-all"
    """Dual encoder against all labels (dist-de-all) or a pool of them (dist-de-hnm). neg_type chooses the pool."""
    tf: Annotated[str, Field(min_length=1)] = "distilbert-base-uncased"
    """Encoder: a Hub id, a local folder, or package:<python package>/<folder>. Queries and labels share it."""
    tf_pooler: Literal["cls", "mean", "pooler", "last"] = "cls"
    """How token vectors become one: first token, mean, the model's pooler, last token. Take what tf was made for."""
    tf_max_len: Count = 32
    """Tokens kept of a text, special tokens included. Longer sees more and costs more."""
    tf_token_type: str = ""
    """Tokenizer, a name like tf. Empty follows DEXML: roberta-base or bert-base-uncased if tf sounds so, else tf."""
    tf_dropout: Annotated[float | None, Field(ge=0, lt=1)] = None
    """Dropout inside the encoder. null keeps the model's own, a number replaces all of them (0 is faster)."""
    trust_remote_code: bool = False
    """Let a model from the Hub run its own Python code. Only for models whose code you have read."""
    bottleneck_dim: Natural = 0
    """Width of a linear layer after pooling. 0 has none; a small width makes the label index smaller."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the pooled embedding, before normalisation."""
    norm_embs: bool = True
    """Scale embeddings to length 1, in training and retrieval. Without it use a tau near 1."""
    tau: Positive = 0.05
    """Temperature: scores are divided by it in the loss. Smaller looks harder at the nearest negatives."""

    # Loss
    loss: Literal["sim-loss"] = "sim-loss"
    """Family of losses. Only sim-loss is available; loss_criterion is the choice."""
    loss_criterion: Literal["decoupled-softmax", "topk", "softmax", "bce"] = "decoupled-softmax"
    """The loss: decoupled-softmax for all-round use, topk for the first topk_K places, softmax and bce as baselines."""
    loss_sample: bool = True
    """Keep one positive per query and step, drawn by relevance. False uses all: more signal a step, for few epochs."""
    loss_reduction: str = "mean"
    """Had no effect in DEXML. Only mean is accepted."""
    loss_weighted: bool = False
    """Multiply each positive's term by its relevance. Not for bce."""
    topk_K: Count | Annotated[str, Field(pattern="^num_pos")] = 5
    """Places that the topk loss aims at. num_pos: as many as the query has positives (needs loss_sample False)."""
    topk_alpha: Positive = 2.0
    """Slope of the soft top-k. Larger is nearer to a hard cut, with smaller gradients away from it."""
    topk_n_iter: Count = 32
    """Most solver passes for the soft top-k threshold."""
    topk_solver: Literal["halley", "bisect"] = "halley"
    """Solver of the soft top-k threshold. bisect is DEXML's: same threshold, more passes."""
    topk_cdf: Literal["logistic", "laplace"] = "logistic"
    """Curve of the soft top-k. logistic is the published one; laplace is solved exactly in one pass."""

    # Negatives
    neg_type: Literal["none", "in-batch", "shorty"] = "none"
    """Negatives of dist-de-hnm: the batch's labels (in-batch, none) or mined ones too (shorty). Else none."""
    label_side: Literal["auto", "all", "in-batch", "shortlist"] = "auto"
    """Labels that a step compares with. auto follows net and neg_type; any other value must agree with them."""
    hard_neg_start: Natural = 1000
    """Epochs after this one use the mined shortlist. Earlier ones use the batch."""
    hard_neg_topk: Count = 100
    """Length of the mined shortlist of a training point. It is mined anew every eval_interval epochs."""
    num_neg_samples: Natural = 1
    """Labels drawn from the shortlist per query and step."""
    num_pos_samples: Count = 1
    """Positives drawn per query and step into the pool of dist-de-hnm."""

    # Training
    num_epochs: Count = 100
    """Passes over the training points."""
    bsz: Count = 1000
    """Queries per process and step. Lower it when the loss or the query side runs out of memory, and lr with it."""
    grad_accum: Count = 1
    """Batches whose gradients are added up before one optimiser step."""
    lr: Positive = 1e-4
    """Peak learning rate, before lr_scaling. The effective rate is printed at the start."""
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How lr grows with the number of processes. linear is DEXML's; prefer none and set the rate you mean."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of all steps in which lr rises. After them it falls linearly to 0."""
    optim_bundle: Literal["base"] = "base"
    """Grouping of parameters. Only base (one optimiser for all) is available."""
    optim: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimiser."""
    weight_decay: NotNegative = 0.01
    """Weight decay, except on biases and layer norms. DEXML used 0.01 whatever this key said."""
    max_grad_norm: NotNegative = 0.0
    """Gradients longer than this are shortened to it. 0 never clips."""

    # Evaluation
    eval_interval: Count = 5
    """Epochs between evaluations. The last epoch is always evaluated."""
    eval_topk: Count = 100
    """Predictions kept per point. Metrics at larger k are left out."""
    eval_bsz: Natural = 0
    """Texts encoded at a time in evaluation. 0 is twice bsz."""
    track_metric: Annotated[str, Field(pattern=r"^(P|nDCG|PSP|R|MRR)@[1-9][0-9]*$")] = "nDCG@5"
    """Metric that chooses the best model, such as P@1 or PSP@5."""

    # Speed and memory: results stay the same, to rounding
    amp_encode: bool = True
    """Run the encoder in half precision where the processor has it. Scores and losses are always fp32."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format inside the encoder. auto is fp32 if amp_encode is False, else bf16 where the processor has it."""
    gc_bsz: Count = 1000
    """Labels encoded at a time with gradients. Lower this first when memory runs out; steps get a little slower."""
    gc_bsz_x: Natural = 0
    """Queries encoded at a time with gradients. 0 keeps the whole batch; set it when long queries fill memory."""
    token_budget: Count = 16384
    """Most padded tokens encoded at a time. Lower it when long texts run out of memory."""
    tile_rows: Natural = 0
    """Queries in one tile of the loss. 0 is all of them."""
    tile_cols: Count = 8192
    """Labels in one tile of the loss. Lower it when the loss runs out of memory."""
    grad_checkpointing: bool = False
    """Recompute the encoder's activations in the backward pass. About half the memory for a third more time."""
    compile: bool = False
    """Compile the encoder with torch.compile. Minutes at the start, faster steps on a GPU."""
    num_threads: Natural = 0
    """CPU threads per process. 0 shares the cores among the processes of this machine."""
    num_processes: Natural = 0
    """Processes that must have been started. 0 takes any number; set it to notice a launch that lost some."""


FIELDS = Keys.model_fields

# Keys that a run may change when it resumes: they name, show or schedule work, what is learned stays the same.
_NO_EFFECT_ON_RESULTS = {
    *("project", "expname", "desc", "data_root", "results_root", "tracker", "log_interval", "eval_topk", "eval_bsz"),
    *("save", "save_interval", "save_keep", "resume", "num_threads", "num_processes", "grad_checkpointing", "compile"),
    *("gc_bsz", "gc_bsz_x", "token_budget", "tile_rows", "tile_cols"),
}

# DEXML's dumped config.yaml mixes these facts about the run with the keys; they are skipped.
_RUN_FACTS = {
    *("DATA_DIR", "OUT_DIR", "numy", "num_gpu", "device", "amp", "use_grad_scaler", "hostname", "exp_start_time"),
    *("embs_dim", "wandb_id", "nnz"),
}
# Choices where DEXML or a later version has more than this one.
_AVAILABLE_LATER = {"net", "tf_pooler", "data_manager", "optim_bundle", "label_side", "loss"}


class Config(Keys):
    """A whole, consistent configuration. Make one with `load_config`."""

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        problems = [text for _, text in _conflicts(self)]
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
        """`tf_token_type`, else `tf` where files are at hand, else DEXML's choice by name (spec of `tf_token_type`)."""
        if self.tf_token_type:
            return self.tf_token_type
        if self.tf.startswith("package:") or Path(self.tf).is_dir():
            return self.tf
        known = {"roberta": "roberta-base", "bert": "bert-base-uncased"}
        return next((tokenizer for part, tokenizer in known.items() if part in self.tf), self.tf)

    @property
    def resolved_label_side(self) -> str:
        """all, in-batch or shortlist: `label_side` with auto worked out."""
        return _label_side(self)

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


# --- Checks between keys: the keys involved, and a line that stands alone -------------------------------------------

Conflict = tuple[tuple[str, ...], str]


def _label_side(keys: Keys) -> str:
    if keys.net == "dist-de-all":
        return "all"
    return "shortlist" if keys.neg_type == "shorty" else "in-batch"


def _conflicts(keys: Keys) -> Iterator[Conflict]:
    yield from _without_effect(keys)
    yield from _unsafe_names(keys)
    yield from _side_conflicts(keys)
    yield from _loss_conflicts(keys)
    yield from _selection_conflicts(keys)
    if keys.precision in ("bf16", "fp16") and not keys.amp_encode:
        text = f"precision {keys.precision} contradicts amp_encode False, which means fp32; set one of them"
        yield ("precision", "amp_encode"), text


def _without_effect(keys: Keys) -> Iterator[Conflict]:
    if keys.expand_multilabel_dataset:
        yield ("expand_multilabel_dataset",), "expand_multilabel_dataset had no effect in DEXML; remove it"
    if keys.loss_reduction != "mean":
        yield ("loss_reduction",), f"loss_reduction {keys.loss_reduction!r} had no effect in DEXML; remove it"
    for key in ("transpose_trn_dataset", "only_keep_trn_labels"):
        if getattr(keys, key):
            yield (key,), f"{key} is not supported in this version; remove it"


def _unsafe_names(keys: Keys) -> Iterator[Conflict]:
    """Names become folders: they must stay below their root, and `[key]` in them must have been filled in."""
    for key in ("project", "dataset", "expname"):
        name = getattr(keys, key)
        parts = [part.strip() for part in name.split("/")]
        if key == "dataset" and not name:
            continue  # only load_config asks for it
        if ".." in name or "" in parts or "." in parts:
            yield (key,), f"{key} {name!r} cannot name a folder: no '..', no empty part, no '/' at either end"
        elif unknown := re.search(r"\[(\w+)\]", name):
            yield (key,), f"{key} {name!r}: [{unknown[1]}] is not a key{_did_you_mean(unknown[1])}"


def _side_conflicts(keys: Keys) -> Iterator[Conflict]:
    if keys.net == "dist-de-all" and keys.neg_type != "none":
        text = f"neg_type {keys.neg_type} needs net dist-de-hnm; dist-de-all compares with all labels (neg_type none)"
        yield ("neg_type", "net"), text
    elif keys.label_side not in ("auto", _label_side(keys)):
        reason = f"net {keys.net} with neg_type {keys.neg_type} means label_side {_label_side(keys)}"
        yield ("label_side", "net", "neg_type"), f"label_side {keys.label_side} does not fit: {reason}; remove it"


def _loss_conflicts(keys: Keys) -> Iterator[Conflict]:
    if isinstance(keys.topk_K, str) and keys.loss_sample:
        yield ("topk_K", "loss_sample"), f"topk_K {keys.topk_K} counts all positives: set loss_sample False"
    if keys.loss_criterion == "bce" and keys.loss_weighted:
        yield (
            ("loss_weighted", "loss_criterion"),
            "loss_weighted is not defined for loss_criterion bce; remove one of them",
        )
    if (keys.propensity_A is None) != (keys.propensity_B is None):
        yield ("propensity_A", "propensity_B"), "propensity_A and propensity_B belong together: set both or neither"


def _selection_conflicts(keys: Keys) -> Iterator[Conflict]:
    if keys.select_on_test and keys.num_val_points:
        text = f"select_on_test True contradicts num_val_points {keys.num_val_points}: choose on one of the two"
        yield ("select_on_test", "num_val_points"), text
    if int(keys.track_metric.rpartition("@")[2]) > keys.eval_topk:
        text = (
            f"track_metric {keys.track_metric} looks beyond the eval_topk {keys.eval_topk} predictions; raise eval_topk"
        )
        yield ("track_metric", "eval_topk"), text


# --- Reading ---------------------------------------------------------------------------------------------------------


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
    problems += wrong_words + [_unknown(key, entry) for key, entry in entries.items() if key not in FIELDS]
    entries = interpolate({key: entry for key, entry in entries.items() if key in FIELDS}, _defaults())
    keys, misfits = _typed(entries)
    problems += [_misfit(key, entry) for key, entry in entries.items() if key in misfits]
    if complete:  # a missing file must not be reported as all the keys it would have set
        problems += _located_conflicts(keys, misfits, entries)
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


# --- Messages --------------------------------------------------------------------------------------------------------


def _did_you_mean(key: str) -> str:
    near = difflib.get_close_matches(key.replace("-", "_"), FIELDS, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _unknown(key: str, entry: Entry) -> str:
    return f"{entry.where}: unknown key '{key}'{_did_you_mean(key) or '; --help lists all keys'}"


def _misfit(key: str, entry: Entry) -> str:
    got = "nothing" if entry.value is None else repr(entry.value)
    if key in _AVAILABLE_LATER and isinstance(entry.value, str):
        choices = ", ".join(get_args(FIELDS[key].annotation))
        return f"{entry.where}: {key} {got} is not available in this version; available: {choices}"
    place = entry.where if entry.where == f"--{key}" else f"{entry.where}: {key}"
    hint = " (put quotes around a text with brackets)" if isinstance(entry.value, list) else ""
    return f"{place}: expected {_expected(key)}, got {got}{hint}"


def _expected(key: str) -> str:
    kind = FIELDS[key].annotation
    special = {
        "topk_K": "an integer >= 1 or a text starting with num_pos",
        "track_metric": "P@k, nDCG@k, PSP@k, R@k or MRR@k",
    }
    if key in special:
        return special[key]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    noun = next(noun for type_, noun in _NOUNS.items() if kind is type_ or type_ in get_args(kind))
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [
        f"{signs[name]} {getattr(bound, name)}"
        for bound in FIELDS[key].metadata
        for name in signs
        if hasattr(bound, name)
    ]
    return " ".join([noun, " and ".join(bounds)]).strip() + (" or null" if NoneType in get_args(kind) else "")


_NOUNS = {bool: "yes or no", int: "an integer", float: "a number", str: "a text"}


def _located_conflicts(keys: Keys, misfits: set[str], entries: Mapping[str, Entry]) -> list[str]:
    """Conflicts between well-formed keys, each at the place where the last key involved was written."""
    order = list(entries)
    lines = []
    for involved, text in _conflicts(keys):
        written = [key for key in involved if key in entries]
        if not misfits.intersection(involved):
            lines.append(f"{entries[max(written, key=order.index)].where}: {text}" if written else text)
    if not keys.dataset and "dataset" not in misfits:
        lines.append("dataset is not set: name the folder under data_root in a YAML file or with --dataset NAME")
    return lines


def config_help() -> str:
    """The table of `--help`: key, type, default and the first sentence of its text."""
    rows = [(f"--{key}", _type_name(key), _default_text(key), _first_sentence(key)) for key in FIELDS]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*map(str.ljust, row[:3], widths), row[3]]) for row in rows)


def _type_name(key: str) -> str:
    kind = FIELDS[key].annotation
    if key == "topk_K":
        return "int|num_pos"
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    return next(t.__name__ for t in _NOUNS if kind is t or t in get_args(kind))


def _default_text(key: str) -> str:
    default = FIELDS[key].default
    text = "null" if default is None else str(default) or "''"
    return text if len(text) <= 24 else f"{text[:21]}..."


def _first_sentence(key: str) -> str:
    return re.split(r"(?<=\.)\s", FIELDS[key].description or "")[0]
