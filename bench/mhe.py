"""Multi-Head Encoding: what a head learns in some minutes of a processor, and what a step costs with many labels.

    python bench/mhe.py quality configs/EURLEX57K-Titles/mhe-cascade.yaml --minutes 5 --json docs/results-mhe.json
    python bench/mhe.py quality configs/EURLEX57K-Titles/mhe-cascade.yaml --split val --lr 2e-4   # to choose settings
    python bench/mhe.py quality configs/Iconclass/mhe-cascade.yaml --minutes 1 --frozen Results/vectors # the head
    python bench/mhe.py scale cascade --labels 1300000 --json docs/results-mhe.json     # product, cascade, ova
    python bench/mhe.py table docs/results-mhe.json                        # the tables of docs/mhe.md

`quality` trains any config for `--minutes` of processor time (all threads added, evaluation left out), the learning
rate falling to 0 by then, and measures it on `--split`. With `--frozen` the encoder stays as it was pretrained, and its
vectors are computed once. `scale` takes steps on random text vectors and labels: head and optimiser without the
encoder, in seconds of the processor. A row of the same data, name and split is replaced in the JSON file. With several
threads on a busy machine processor time counts their waiting for one another: set OMP_NUM_THREADS=1 to compare.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path
    sys.path[0] = str(Path(__file__).absolute().parents[1])

import argparse
import contextlib
import json
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.common import write_json
from dexml.config import Config, load_config

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from dexml.heads.label_codes import LabelCodes
    from dexml.session import Session

Row = dict[str, Any]
METRICS = ("P@1", "P@3", "P@5", "PSP@5", "R@100")
ENCODER_GROUPS = 2  # of parameters, the first ones
FORCED = {"save": False, "save_interval": 0, "resume": "never", "num_epochs": 10_000, "eval_interval": 10_000}


def quality(cfg: Config, minutes: float, split: str) -> Row:
    """Trains for the given processor minutes and measures."""
    from dexml.training.trainer import Trainer

    class Enough(Exception):
        """The time is over."""

    class Timed(Trainer):
        paces: list[float]

        def _train(self) -> None:
            self.paces, self.began = [], time.process_time()
            with contextlib.suppress(Enough):
                super()._train()

        def _step(self, parts: Any) -> None:
            before = time.process_time()
            super()._step(parts)
            self.paces.append(time.process_time() - before)
            spent = time.process_time() - self.began
            if spent >= 60 * minutes:
                raise Enough
            left = (60 * minutes - spent) / statistics.median(self.paces[-50:])
            self.stepper.total = self.state.step + max(1, round(left))

        def _finish(self) -> dict[str, Any]:
            metrics, predictions = self.session.evaluate(split)[split]
            points = self.session.points(split)
            return metrics | {
                "ghosts": ghosts(predictions.ids[:, :5], points.relevance, getattr(self.head, "codes", None))
            }

    trainer = Timed(cfg)
    metrics = trainer.fit()
    return row(trainer.session, split, minutes, metrics, trainer.paces)


def row(session: Session, split: str, minutes: float, metrics: Row, paces: list[float]) -> Row:
    import torch

    cfg, head = session.cfg, session.head
    parameters = sum(p.numel() for p in [*head.shared, *head.own.values()])
    parameters -= sum(p.numel() for p in session.encoder.parameters() if p.requires_grad)
    return {
        "data": cfg.dataset, "name": cfg.expname, "split": split, "minutes": minutes,
        **{name: round(float(metrics[name]), 2) for name in METRICS if name in metrics},
        "ghosts": metrics["ghosts"], "parameters": parameters, "steps": len(paces), "bsz": cfg.bsz,
        "cpu_s_per_step": round(statistics.median(paces), 4), "peak_mb": peak_mb(),
        "threads": torch.get_num_threads(), "settings": settings(cfg),
    }  # fmt: skip


def frozen(cfg: Config, minutes: float, split: str, folder: Path) -> Row:
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
    metrics = session.measure_here(points, Predictions(ids, scores))
    metrics["ghosts"] = ghosts(ids[:, :5], points.relevance, getattr(head, "codes", None))
    return row(session, split, minutes, metrics, paces)


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


def scale(kind: str, n_labels: int, width: int, dim: int, bsz: int, steps: int) -> Row:
    """Steps of a head on random texts of five random labels."""
    step, parameters = (ova if kind == "ova" else multi_head)(kind, n_labels, width, dim, bsz)
    rng, seconds = np.random.default_rng(0), []
    for _ in range(steps + 1):
        labels = rng.integers(0, n_labels, (bsz, 5))
        before = time.process_time()
        loss_done = step(rng.standard_normal((bsz, width), np.float32), labels)
        seconds.append((loss_done - before, time.process_time() - loss_done))
    loss, update = (statistics.median(part) for part in zip(*seconds[1:], strict=True))
    return {
        "data": "synthetic", "name": kind, "split": n_labels, "width": width, "dim": dim, "bsz": bsz,
        "parameters": parameters, "loss_s": round(loss, 4), "optimiser_s": round(update, 4), "peak_mb": peak_mb(),
    }  # fmt: skip


Step = Callable[[np.ndarray, np.ndarray], float]


def multi_head(kind: str, n_labels: int, width: int, dim: int, bsz: int) -> tuple[Step, int]:
    """A step on text vectors and labels, giving the time when its gradient was there; the number of parameters."""
    import torch
    from scipy.sparse import csr_matrix

    from dexml.data.batching import Batch
    from dexml.data.dataset import Split
    from dexml.distributed import World
    from dexml.heads.features import Positives, PreparedFeatures
    from dexml.heads.label_codes import LabelCodes
    from dexml.heads.make import MHE
    from dexml.heads.mhe_codes import chosen_lengths
    from dexml.training.optim import make_optimizer

    class NoEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width, self.one = width, torch.nn.Parameter(torch.zeros(1))

    keys = {"mhe_open": 32, "mhe_dim": dim} if kind == "cascade" else {}
    cfg = Config(dataset="synthetic", net="mhe", mhe_kind=kind, **keys)
    head = MHE[kind](cfg, NoEncoder(), n_labels, lambda part: None, World())  # type: ignore[arg-type, return-value]
    head.codes = LabelCodes(chosen_lengths(cfg, n_labels, width), np.arange(n_labels))
    head._seeded(lambda: head._build("bce"))
    optimizer = make_optimizer(cfg, [{"params": list(head.net.parameters()), "lr": 1e-3}])
    keys_B = np.arange(bsz, dtype=np.int32)

    def step(x: np.ndarray, labels: np.ndarray) -> float:
        cells = (np.ones(labels.size, np.float32), (np.repeat(np.arange(bsz), labels.shape[1]), labels.ravel()))
        split = Split("trn", [], csr_matrix(cells, (bsz, n_labels)), None)  # type: ignore[arg-type]
        own = Positives.of(split, np.arange(bsz))
        ready = PreparedFeatures(Batch(np.arange(bsz), 0, 0), None, np.arange(bsz), own, keys_B)  # type: ignore[arg-type]
        head.loss(torch.from_numpy(x).requires_grad_(), ready).backward()
        done = time.process_time()
        optimizer.step()
        optimizer.zero_grad()
        return done

    return step, sum(p.numel() for p in head.net.parameters())


def ova(kind: str, n_labels: int, width: int, dim: int, bsz: int) -> tuple[Step, int]:
    """The same for a vector of the text's width for every label, against all of which every text is compared."""
    import torch

    from dexml.losses import Positives, tiled

    table = torch.nn.Parameter(torch.zeros(n_labels, width))
    optimizer = torch.optim.AdamW([table], 1e-3, fused=True)

    def step(x: np.ndarray, labels: np.ndarray) -> float:
        labels = np.sort(labels, axis=1)
        positives = Positives.from_csr(np.arange(bsz + 1) * labels.shape[1], labels.ravel())
        table.grad = tiled("bce", torch.from_numpy(x), table, positives, 1.0).grad_label
        done = time.process_time()
        optimizer.step()
        return done

    return step, table.numel()


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
    aside |= {"eval_interval", "dataset", "num_threads"}
    return {key: value for key, value in cfg.to_dict().items() if value != default[key] and key not in aside}


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def keep(path: Path, kind: str, new: Row) -> None:
    """Adds a row to the file, in place of one of the same name."""
    found = json.loads(path.read_text()) if path.exists() else {"quality": [], "scale": []}
    same = ("data", "name", "split")
    found[kind] = [old for old in found[kind] if [old[key] for key in same] != [new[key] for key in same]] + [new]
    write_json(path, found)


def tables(found: dict[str, list[Row]]) -> str:
    """The rows as Markdown, a table of each command."""
    columns = {
        "quality": ("data", "name", *METRICS, "ghosts", "parameters", "steps", "cpu_s_per_step", "peak_mb"),
        "scale": ("name", "parameters", "loss_s", "optimiser_s", "peak_mb"),
    }
    return "\n\n".join(_table(found[kind], names) for kind, names in columns.items() if found[kind])


def _table(rows: list[Row], names: Sequence[str]) -> str:
    def cell(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:,}" if isinstance(value, int) else str(value)

    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    lines += [" | ".join(cell(row.get(name)) for name in names) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("quality", allow_abbrev=False)
    one.add_argument("files", nargs="+")
    one.add_argument("--minutes", type=float, default=5)
    one.add_argument("--split", choices=("val", "tst"), default="tst")
    one.add_argument("--frozen", type=Path, metavar="FOLDER")
    one.add_argument("--json", type=Path)
    two = commands.add_parser("scale", allow_abbrev=False)
    two.add_argument("head", choices=("product", "cascade", "ova"))
    for name, value in (("labels", 1_300_000), ("width", 384), ("dim", 100), ("bsz", 64), ("steps", 5)):
        two.add_argument(f"--{name}", type=int, default=value)
    two.add_argument("--json", type=Path)
    three = commands.add_parser("table", allow_abbrev=False)
    three.add_argument("file", type=Path)
    args, words = parser.parse_known_args(argv)
    if args.command == "table":
        print(tables(json.loads(args.file.read_text())))
        return
    if args.command == "quality":
        cfg = load_config(args.files, [*words, *(f"--{key}={value}" for key, value in FORCED.items())])
        if args.frozen:
            found = frozen(cfg, args.minutes, args.split, args.frozen)
        else:
            found = quality(cfg, args.minutes, args.split)
    else:
        found = scale(args.head, args.labels, args.width, args.dim, args.bsz, args.steps)
    print(json.dumps(found))
    if args.json:
        keep(args.json, args.command, found)


if __name__ == "__main__":
    main(sys.argv[1:])
