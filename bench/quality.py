"""What nets learn in the same processor minutes, as a table.

    python bench/quality.py configs/Iconclass/lightxml.yaml --minutes 5 --json docs/results-heads.json
    python bench/quality.py configs/Iconclass/lightxml.yaml --name "LightXML, gate" --minutes 5 --lxml_se gate
    python bench/quality.py configs/Iconclass/lightxml.yaml --split val --lr 2e-4       # to choose settings
    python bench/quality.py configs/Iconclass/mhe-cascade.yaml --minutes 1 --frozen Results/vectors    # the head alone
    python bench/quality.py configs/YSO-Finna-EN/bilstm.yaml --cut 60000 --split val        # of many points some
    python bench/quality.py --table docs/results-heads.json

Any config is trained for `--minutes` of processor time, all threads added up, what comes before the first step included
(trees that are not cached yet, label weights that learn first) and evaluation left out; the learning rate falls to 0 by
then. Levels of AttentionXML share the minutes equally. It is measured on `--split`, with `--predict_mode mix` by its
labels, by the vote of training points and by both. With `--frozen` the encoder stays as it was pretrained, and its
vectors are computed once and kept in that folder. A row of the same data, name and split is replaced in the JSON file.
With several threads on a busy machine processor time counts their waiting for one another: set OMP_NUM_THREADS=1 to
compare.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path
    sys.path[0] = str(Path(__file__).absolute().parents[1])

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.bank import cut
from bench.common import write_json
from dexml.config import Config, load_config
from dexml.machine import peak_mb

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from dexml.evaluation.retrieval import Predictions
    from dexml.heads.label_codes import LabelCodes
    from dexml.session import Session

Row = dict[str, Any]
METRICS = ("P@1", "P@3", "P@5", "PSP@5", "R@100")
COLUMNS = {name: name for name in METRICS} | {
    "minutes": "minutes", "parameters": "parameters", "s/step": "cpu_s_per_step", "peak MB": "peak_mb"
}  # fmt: skip
FORCED = {"save": False, "save_interval": 0, "resume": "never", "num_epochs": 10_000, "eval_interval": 10_000}
RECENT = 50  # steps whose median is the pace
ENCODER_GROUPS = 2  # of parameters, the first ones


def quality(cfg: Config, minutes: float, split: str, name: str = "", beams: Sequence[int] = ()) -> list[Row]:
    """Trains for the given processor minutes and measures: a row for every way of predicting up to `predict_mode`, and
    for every other beam that a label tree is searched with (`plt_beam`)."""
    from dexml.heads.attentionxmltree import n_levels
    from dexml.training.modes import evaluate_modes
    from dexml.training.trainer import Trainer

    rows: list[Row] = []

    class Enough(Exception):
        """The time is over."""

    class Timed(Trainer):
        def _build(self) -> None:
            self.paces: list[float] = []
            self.began = time.process_time()
            super()._build()

        def _train(self) -> None:
            with contextlib.suppress(Enough):
                super()._train()

        def _step(self, parts: Any) -> None:
            before = time.process_time()
            super()._step(parts)
            self.paces.append(time.process_time() - before)
            left = 60 * minutes / levels - (time.process_time() - self.began)
            if left <= 0:
                raise Enough
            self.stepper.total = self.state.step + max(1, round(left / statistics.median(self.paces[-RECENT:])))

        def _finish(self) -> dict[str, Any]:
            if self.cfg.train_level is not None:
                return super()._finish()
            self._measure(name or cfg.expname)
            for beam in beams:
                self.session.head.cfg = self.cfg.model_copy(update={"plt_beam": beam})  # type: ignore[attr-defined]
                self._measure(f"{name or cfg.expname}, {f'beam {beam}' if beam else 'exact'}", plt_beam=beam)
            return rows[-1]

        def _measure(self, called: str, **searched: int) -> None:
            for mode, (_, found) in evaluate_modes(self.session, [split], cfg.predict_mode)[split].items():
                whole = called if mode == "labels" else f"{called}, {mode}"
                rows.append(row(self.session, split, minutes, found, self.paces, whole))
                rows[-1]["settings"] |= searched

    levels = n_levels(cfg) if cfg.net == "attentionxml" else 1
    Timed(cfg).fit()
    return rows


def frozen(cfg: Config, minutes: float, split: str, folder: Path, name: str = "") -> Row:
    """The same for a head on the vectors of the encoder as it was pretrained, which are kept in `folder`."""
    import torch

    from dexml.data.batching import epoch_batches
    from dexml.distributed import World
    from dexml.evaluation.retrieval import Predictions
    from dexml.heads.features import FeatureHead
    from dexml.session import Session
    from dexml.training.optim import make_optimizer, set_lr

    session = Session(cfg, World())
    head, trn = session.head, vectors(session, "trn", folder)
    assert isinstance(head, FeatureHead)
    head.learn_from(session.training_split)
    head.encoder.train()
    groups = head.param_groups()[ENCODER_GROUPS:]
    optimizer, peaks = make_optimizer(cfg, groups), [group["lr"] for group in groups]
    paces, began, done = [], time.process_time(), 0.0
    for batch in (batch for epoch in range(10_000) for batch in epoch_batches(session.train_rows, cfg.bsz, 0, epoch)):
        before = time.process_time()
        set_lr(optimizer, peaks, 1 - done)
        head.loss(torch.from_numpy(trn[batch.points].astype(np.float32)), head.prepare(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
        paces.append(time.process_time() - before)
        done = (time.process_time() - began) / (60 * minutes)
        if done >= 1:
            break
    points = session.points(split)
    z = trn if split == "val" else vectors(session, split, folder)
    with torch.no_grad():
        blocks = (
            torch.from_numpy(z[rows].astype(np.float32)) for rows in np.array_split(points.rows, 1 + len(z) // 512)
        )
        ids, scores = (
            torch.cat(side).numpy() for side in zip(*(head.best(block, 100) for block in blocks), strict=True)
        )
    return row(session, split, minutes, Predictions(ids, scores), paces, name)


def vectors(session: Session, part: str, folder: Path) -> np.ndarray:
    """Text vectors of a part of the data in float16, computed once."""
    cfg, tokens = session.cfg, session.tokens(part)
    path = folder / f"{cfg.dataset}-{part}-{cfg.doc_layers}x{cfg.tf_max_len}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows = np.array_split(np.arange(len(tokens)), 1 + len(tokens) // 4096)
        whole = session.embedder().whole
        np.save(path, np.concatenate([whole(tokens, some).astype(np.float16) for some in rows]))
    return np.load(path, mmap_mode="r")


def row(session: Session, split: str, minutes: float, found: Predictions, paces: Sequence[float], name: str) -> Row:
    import torch

    cfg, head, points = session.cfg, session.head, session.points(split)
    metrics = session.measure_here(points, found)
    parameters = sum(p.numel() for p in [*head.shared, *head.own.values()])
    parameters -= sum(p.numel() for p in session.encoder.parameters() if p.requires_grad)
    return {
        "data": cfg.dataset, "name": name or cfg.expname, "split": split, "minutes": minutes,
        **{metric: round(float(metrics[metric]), 2) for metric in METRICS if metric in metrics},
        "ghosts": ghosts(found.ids[:, :5], points.relevance, getattr(head, "codes", None)),
        "parameters": parameters, "steps": len(paces), "bsz": cfg.bsz,
        "cpu_s_per_step": round(statistics.median(paces), 4), "peak_mb": round(peak_mb()),
        "threads": torch.get_num_threads(), "settings": settings(cfg),
    }  # fmt: skip


def ghosts(ids_N5: np.ndarray, relevance: csr_matrix, codes: LabelCodes | None) -> float | None:
    """Percentage of the wrong predictions whose digits all belong to labels of the text; None without codes."""
    if codes is None:
        return None
    wrong = found = 0
    for ids, first, last in zip(ids_N5, relevance.indptr, relevance.indptr[1:], strict=False):
        own = relevance.indices[first:last]
        others = np.setdiff1d(ids[ids >= 0], own)
        digits, known = codes.encode(others), codes.encode(own)
        wrong += len(others)
        found += int(np.all([np.isin(digits[:, h], known[:, h]) for h in range(codes.n_heads)], axis=0).sum())
    return round(100 * found / max(1, wrong), 2)


def settings(cfg: Config) -> Row:
    """Keys that differ from the defaults, but for places and pace."""
    default = Config(dataset=cfg.dataset).to_dict()
    aside = {"project", "expname", "desc", "results_root", "data_root", "resume", "save", "save_interval", "num_epochs"}
    aside |= {"eval_interval", "dataset", "num_threads", "profile"}
    return {key: value for key, value in cfg.to_dict().items() if value != default[key] and key not in aside}


def add_row(path: Path, row: Row) -> None:
    """Puts a row into the file, in the place of one of the same data, name and split."""
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    same = [all(old[key] == row[key] for key in ("data", "name", "split")) for old in rows]
    write_json(path, [row if found else old for old, found in zip(rows, same, strict=True)] + [row] * (not any(same)))  # type: ignore[arg-type]


def table(rows: Sequence[Row]) -> str:
    """Markdown, a table for each data set and split."""
    parts: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        parts.setdefault((row["data"], row["split"]), []).append(row)
    texts = []
    for (data, split), some in parts.items():
        lines = [f"| {data}, {split} | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
        lines += [f"| {row['name']} | {' | '.join(_cell(row.get(key)) for key in COLUMNS.values())} |" for row in some]
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value:,}"
    return f"{value:.2f}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="quality.py", description="What a net learns in some processor minutes.")
    parser.add_argument("files", nargs="*", help="YAML files of the config; further words are --key value")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--split", default="tst", choices=["val", "tst"])
    parser.add_argument("--cut", type=int, default=0, help="train on so many points of the data set, drawn once")
    parser.add_argument("--frozen", type=Path, metavar="FOLDER", help="of the encoder's vectors, which stay")
    parser.add_argument("--beams", type=int, nargs="+", default=(), help="other searches of a plt, a row for each")
    parser.add_argument("--name", default="", help="of the row (default: expname)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="print the tables of a JSON file")
    args, words = parser.parse_known_args(argv)
    if args.table:
        print(table(json.loads(args.table.read_text(encoding="utf-8"))))
        return
    if not args.files:
        parser.error("name the YAML files of a config")
    cfg = load_config(args.files, [*words, *(f"--{key}={value}" for key, value in FORCED.items())])
    if args.cut:
        cfg = cfg.model_copy(update={"dataset": cut(cfg.data_dir, args.cut).name})
    if args.frozen:
        rows = [frozen(cfg, args.minutes, args.split, args.frozen, args.name)]
    else:
        rows = quality(cfg, args.minutes, args.split, args.name, args.beams)
    print(table(rows))
    for found in rows if args.json else []:
        add_row(args.json, found)


if __name__ == "__main__":
    main()
