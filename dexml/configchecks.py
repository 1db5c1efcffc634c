"""Checks between keys: settings that contradict each other, have no effect or cannot name a folder."""

import re
from collections.abc import Iterator, Mapping

from dexml.configkeys import FAMILIES, FIELDS, Keys
from dexml.configkeys.attentionxml import LabelwiseKeys
from dexml.configkeys.bank import BankKeys
from dexml.configkeys.lightxml import GROUPED
from dexml.configkeys.mhe import KIND_KEYS
from dexml.configmessages import did_you_mean
from dexml.yamlfiles import Entry

Conflict = tuple[tuple[str, ...], str]  # the keys involved, and a line that stands alone


def resolved_side(keys: Keys) -> str:
    """all, in-batch, shortlist or bank: what `net`, `neg_type` and `label_side` mean for the labels of a step."""
    if keys.net == "dist-de-all" and keys.label_side == "bank":
        return "bank"
    if keys.net != "dist-de-hnm":
        return "all"
    return "shortlist" if keys.neg_type == "shorty" else "in-batch"


def reads_states(keys: Keys) -> bool:
    """Whether the head reads the state of every token, not one vector a text."""
    return keys.net in ("attentionxml", "bilstm") or (keys.net == "plt" and keys.plt_scorer == "labelwise")


def conflicts(keys: Keys) -> Iterator[Conflict]:
    """Everything that is wrong between keys that are well-formed one by one."""
    yield from _without_effect(keys)
    yield from _unsafe_names(keys)
    yield from _side_conflicts(keys)
    yield from _background_conflicts(keys)
    yield from _loss_conflicts(keys)
    yield from _selection_conflicts(keys)
    yield from _lightxml_conflicts(keys)
    yield from _mhe_conflicts(keys)
    yield from _attention_conflicts(keys)
    yield from _scorer_conflicts(keys)
    if keys.precision in ("bf16", "fp16") and not keys.amp_encode:
        text = f"precision {keys.precision} contradicts amp_encode False, which means fp32; set one of them"
        yield ("precision", "amp_encode"), text
    if keys.compile and keys.grad_checkpointing:
        yield ("compile", "grad_checkpointing"), "compile and grad_checkpointing cannot be used together; unset one"


def _without_effect(keys: Keys) -> Iterator[Conflict]:
    if keys.expand_multilabel_dataset:
        yield ("expand_multilabel_dataset",), "expand_multilabel_dataset had no effect in DEXML; remove it"
    if keys.loss_reduction != "mean":
        yield ("loss_reduction",), f"loss_reduction {keys.loss_reduction!r} had no effect in DEXML; remove it"
    if keys.net != "dist-clf-net":
        for key in ("clf_init", "clf_joint", "clf_dtype"):
            if getattr(keys, key) != FIELDS[key].default:
                yield (key, "net"), f"{key} is for net dist-clf-net, net is {keys.net}; remove it"
    if keys.clf_lr is not None and keys.net.startswith("dist-de"):
        yield ("clf_lr", "net"), f"clf_lr is for nets with weights of labels, net is {keys.net}; remove it"
    if keys.predict_mode != "labels" and reads_states(keys):
        text = f"predict_mode {keys.predict_mode} compares vectors of texts, net {keys.net} has none; remove it"
        yield ("predict_mode", "net"), text
    if keys.net == "dist-de-all" and keys.label_side != "bank":
        for key in BankKeys.model_fields:
            if getattr(keys, key) != FIELDS[key].default:
                yield (key, "label_side"), f"{key} is for label_side bank; set that or remove it"
    for group, nets in FAMILIES.items():
        for key in group.model_fields:
            if keys.net not in nets and getattr(keys, key) != FIELDS[key].default:
                yield (key, "net"), f"{key} is for net {' or '.join(nets)}, net is {keys.net}; remove it"
    on_vectors = keys.net in ("dist-clf-net", "lightxml", "mhe", "plt") and not reads_states(keys)
    if keys.head_epochs and (keys.clf_joint or not on_vectors):
        text = f"head_epochs is for label weights on a vector of the text alone, not for net {keys.net}"
        why = " with clf_joint" if keys.clf_joint else " with plt_scorer labelwise" if keys.net == "plt" else ""
        yield ("head_epochs", "net", "clf_joint", "plt_scorer"), text + why
    if keys.clf_dtype == "bf16" and keys.optim != "adamw":
        text = f"clf_dtype bf16 is rounded by chance in adamw, optim is {keys.optim}; set one of them back"
        yield ("clf_dtype", "optim"), text
    if keys.clf_joint and keys.clf_init != "label-text":
        yield ("clf_joint", "clf_init"), f"clf_joint begins at the label texts: clf_init {keys.clf_init} does not fit"
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
            yield (key,), f"{key} {name!r}: [{unknown[1]}] is not a key{did_you_mean(unknown[1])}"


def _side_conflicts(keys: Keys) -> Iterator[Conflict]:
    if keys.label_side == "bank" and keys.net != "dist-de-all":
        yield ("label_side", "net"), f"label_side bank is for net dist-de-all, net is {keys.net}; remove it"
        return
    if keys.net != "dist-de-hnm" and keys.neg_type != "none":
        text = f"neg_type {keys.neg_type} needs net dist-de-hnm; {keys.net} compares with all labels (neg_type none)"
        yield ("neg_type", "net"), text
    elif keys.label_side not in ("auto", resolved_side(keys)):
        reason = f"net {keys.net} with neg_type {keys.neg_type} means label_side {resolved_side(keys)}"
        yield ("label_side", "net", "neg_type"), f"label_side {keys.label_side} does not fit: {reason}; remove it"


def _background_conflicts(keys: Keys) -> Iterator[Conflict]:
    if keys.hard_neg_background and resolved_side(keys) != "shortlist":
        text = f"hard_neg_background is for label_side shortlist, label_side is {resolved_side(keys)}; remove it"
        yield ("hard_neg_background", "net", "neg_type"), text


def _loss_conflicts(keys: Keys) -> Iterator[Conflict]:
    if isinstance(keys.topk_K, str) and keys.loss_sample:
        yield ("topk_K", "loss_sample"), f"topk_K {keys.topk_K} counts all positives: set loss_sample False"
    if keys.loss_criterion == "bce" and keys.loss_weighted:
        text = "loss_weighted is not defined for loss_criterion bce; remove one of them"
        yield ("loss_weighted", "loss_criterion"), text
    if keys.logq_correction:
        yield from _correction_conflicts(keys)
    if (keys.propensity_A is None) != (keys.propensity_B is None):
        yield ("propensity_A", "propensity_B"), "propensity_A and propensity_B belong together: set both or neither"


def _lightxml_conflicts(keys: Keys) -> Iterator[Conflict]:
    if keys.net != "lightxml":
        return
    if keys.bottleneck_dim:
        yield (
            ("bottleneck_dim", "net"),
            "bottleneck_dim is not for net lightxml, whose bottleneck is lxml_dim; remove it",
        )
    if keys.lxml_mode == "plain":
        for key in GROUPED:
            if getattr(keys, key) != FIELDS[key].default:
                yield (key, "lxml_mode"), f"{key} is for lxml_mode grouped; remove it"
        if keys.lxml_tokens == "ranker":
            yield ("lxml_tokens", "lxml_mode"), "lxml_tokens ranker is for lxml_mode grouped: plain takes none or both"


def _correction_conflicts(keys: Keys) -> Iterator[Conflict]:
    if resolved_side(keys) != "in-batch":
        text = f"logq_correction is for in-batch negatives, label_side is {resolved_side(keys)}; remove it"
        yield ("logq_correction", "net", "neg_type"), text
    if keys.loss_criterion not in ("softmax", "decoupled-softmax"):
        text = f"logq_correction is not defined for loss_criterion {keys.loss_criterion}; remove it"
        yield ("logq_correction", "loss_criterion"), text
    if keys.loss_sample and keys.num_pos_samples > 1:
        text = f"logq_correction knows no chances for num_pos_samples {keys.num_pos_samples}; set loss_sample False"
        yield ("logq_correction", "loss_sample", "num_pos_samples"), text


def _attention_conflicts(keys: Keys) -> Iterator[Conflict]:
    if reads_states(keys) and keys.net != "bilstm" and keys.attention_output == "lwan":
        text = f"attention_output lwan is for net bilstm: the nodes of {keys.net} share their MLP; remove it"
        yield ("attention_output", "net"), text
    bilstm = keys.text_encoder == "bilstm" or (keys.text_encoder == "auto" and reads_states(keys))
    for key in ("grad_checkpointing", "compile"):
        if bilstm and getattr(keys, key):
            yield (key, "text_encoder"), f"{key} is for transformers, the text_encoder is a bilstm; remove it"


def _scorer_conflicts(keys: Keys) -> Iterator[Conflict]:
    if keys.net != "plt":
        return
    other = "linear" if keys.plt_scorer == "labelwise" else "labelwise"
    for key in ("doc_layers", "doc_dropout", "plt_table") if other == "linear" else LabelwiseKeys.model_fields:
        if getattr(keys, key) != FIELDS[key].default:
            yield (key, "plt_scorer"), f"{key} is for plt_scorer {other}, plt_scorer is {keys.plt_scorer}; remove it"


def _selection_conflicts(keys: Keys) -> Iterator[Conflict]:
    if keys.select_on_test and keys.num_val_points:
        text = f"select_on_test True contradicts num_val_points {keys.num_val_points}: choose on one of the two"
        yield ("select_on_test", "num_val_points"), text
    if int(keys.track_metric.rpartition("@")[2]) > keys.eval_topk:
        found = f"the eval_topk {keys.eval_topk} predictions"
        text = f"track_metric {keys.track_metric} looks beyond {found}; raise eval_topk"
        yield ("track_metric", "eval_topk"), text
    if keys.early_stop and not (keys.num_val_points or keys.select_on_test):
        text = f"early_stop {keys.early_stop} needs points to judge by: set num_val_points"
        yield ("early_stop", "num_val_points"), text


def _mhe_conflicts(keys: Keys) -> Iterator[Conflict]:
    if keys.net != "mhe":
        return
    for key, kinds in KIND_KEYS.items():
        if keys.mhe_kind not in kinds and getattr(keys, key) != FIELDS[key].default:
            text = f"{key} is for mhe_kind {' or '.join(kinds)}, mhe_kind is {keys.mhe_kind}; remove it"
            yield (key, "mhe_kind"), text
    if keys.mhe_kind != "product" and keys.mhe_loss in ("joint-softmax", "soft-margin"):
        yield ("mhe_loss", "mhe_kind"), f"mhe_loss {keys.mhe_loss} is for mhe_kind product; take softmax or bce"
    if keys.mhe_renormalise and keys.mhe_loss not in ("auto", "softmax"):
        yield (
            ("mhe_renormalise", "mhe_loss"),
            f"mhe_renormalise is for mhe_loss softmax, not {keys.mhe_loss}; remove it",
        )
    yield from _rank_conflicts(keys)
    ways = [key for key in ("mhe_lengths", "mhe_groups", "mhe_heads") if getattr(keys, key) != FIELDS[key].default]
    if len(ways) > 1:
        yield tuple(ways), f"{' and '.join(ways)} say the lengths of the heads twice; set one of them"


def _rank_conflicts(keys: Keys) -> Iterator[Conflict]:
    if keys.mhe_rank == 1:
        if keys.mhe_kind == "product" and keys.mhe_open != FIELDS["mhe_open"].default:
            text = "mhe_open is for mhe_kind cascade, or product with mhe_rank above 1; remove it"
            yield ("mhe_open", "mhe_kind", "mhe_rank"), text
        return
    if keys.mhe_loss in ("joint-softmax", "soft-margin"):
        yield ("mhe_loss", "mhe_rank"), f"mhe_loss {keys.mhe_loss} is for mhe_rank 1; take softmax or bce"
    if keys.mhe_heads > 2 or keys.mhe_lengths.count("x") > 1:
        text = "mhe_rank above 1 has two heads: give two mhe_lengths and no mhe_heads, or mhe_rank 1"
        yield ("mhe_heads", "mhe_lengths", "mhe_rank"), text
    if keys.mhe_renormalise:
        text = "mhe_renormalise is for mhe_rank 1: with more, codes of no label are never compared; remove it"
        yield ("mhe_renormalise", "mhe_rank"), text


def located_conflicts(keys: Keys, misfits: set[str], entries: Mapping[str, Entry]) -> list[str]:
    """Conflicts between well-formed keys, each at the place where the last key involved was written."""
    order = list(entries)
    lines = []
    for involved, text in conflicts(keys):
        written = [key for key in involved if key in entries]
        if not misfits.intersection(involved):
            lines.append(f"{entries[max(written, key=order.index)].where}: {text}" if written else text)
    if not keys.dataset and "dataset" not in misfits:
        lines.append("dataset is not set: name the folder under data_root in a YAML file or with --dataset NAME")
    return lines
