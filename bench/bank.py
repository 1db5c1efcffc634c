"""Quality against the cost of the label side: the same training with other labels in its steps.

    python bench/bank.py --config configs/Iconclass/bank.yaml --steps 100 all in-batch bank:bank_budget=0.2
    python bench/bank.py --config configs/YSO-Finna-EN/bank.yaml --cut 100000 --layers 2 --json rows.json all bank

A variant is a label side, and keys to change behind a colon. Every variant trains the same number of steps on the same
batches and is judged on the held-out training points (`num_val_points`); the test set is not read. Rows are added to
the JSON file, one for each variant and seed, with what a step encoded and the minutes it took.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, load_npz, save_npz

from dexml.config import Config, load_config
from dexml.configkeys.bank import BankKeys
from dexml.data.files import atomic_write
from dexml.data.package import resolve_model

SIDES: dict[str, dict[str, Any]] = {
    "all": {"net": "dist-de-all"},
    "in-batch": {"net": "dist-de-hnm", "neg_type": "in-batch", "logq_correction": True},
    "in-batch-plain": {"net": "dist-de-hnm", "neg_type": "in-batch"},
    "shortlist": {
        "net": "dist-de-hnm",
        "neg_type": "shorty",
        "hard_neg_start": 0,
        "num_neg_samples": 4,
        "eval_interval": 1,
    },
    "bank": {"net": "dist-de-all", "label_side": "bank"},
}
METRICS = ("P@1", "P@3", "P@5", "PSP@1", "PSP@5", "R@100", "nDCG@5")
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file with every other setting")
    parser.add_argument("--cut", type=int, default=0, help="train on so many points of the data set, drawn once")
    parser.add_argument("--layers", type=int, help="cut the encoder to its first layers; 0 leaves the word embeddings")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file that the rows are added to")
    parser.add_argument("--skip-known", action="store_true", help="leave out variants that the file has")
    parser.add_argument("variants", nargs="+")
    args = parser.parse_args(argv)
    configs = {variant: config(args, variant) for variant in args.variants}
    for variant, cfg in configs.items():
        row = {"config": args.config.stem, "data": args.config.parent.name, "cut": args.cut, "steps": args.steps}
        row |= {"seed": args.seed, "variant": variant, "layers": args.layers}
        if args.skip_known and any(row.items() <= known.items() for known in read(args.json)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            row |= measure(shallow(cfg, args.layers, Path(folder)) if args.layers is not None else cfg, args.steps)
        print(json.dumps(row), flush=True)
        if args.json:
            write(args.json, [known for known in read(args.json) if not same(known, row)] + [row])


def config(args: argparse.Namespace, variant: str) -> Config:
    side, _, keys = variant.partition(":")
    words = [f"--{word}".split("=", 1) for word in keys.split(",") if word]
    data = load_config([args.config])
    name = cut(data.data_dir, args.cut).name if args.cut else data.dataset
    forced = {
        "dataset": name,
        "label_side": "auto",
        "project": "bank",
        "expname": variant.replace(",", "_"),
        "save": False,
    }
    forced |= {"resume": "never", "seed": args.seed, "save_interval": 0, "num_epochs": 1000, "eval_interval": 1000}
    forced |= SIDES[side]
    if side != "bank":
        forced |= {key: field.default for key, field in BankKeys.model_fields.items()}
    flat = [word for pair in words for word in pair]
    own = {word[2:] for word in flat[::2]}
    return load_config([args.config], [w for k, v in forced.items() if k not in own for w in (f"--{k}", f"{v}")] + flat)


def shallow(cfg: Config, layers: int, folder: Path) -> Config:
    """With the first layers of the encoder only."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(resolve_model(cfg.tf), num_hidden_layers=layers)
    model.save_pretrained(folder)
    return cfg.model_copy(update={"tf": str(folder), "tf_token_type": cfg.tokenizer_name})


def measure(cfg: Config, steps: int) -> Row:
    """Trains `steps` steps, a whole schedule, and judges the model on the held-out points."""
    from dexml.data.batching import epoch_batches
    from dexml.training.ahead import ahead
    from dexml.training.trainer import Trainer

    trainer = Trainer(cfg)
    trainer._build()
    trainer.total = trainer.stepper.total = steps
    began, busy = time.perf_counter(), time.process_time()
    trainer._restore()
    trainer.session.encoder.train()
    facts: list[dict[str, float]] = []
    labels = tokens = 0
    while trainer.state.step < steps:
        epoch, start = divmod(trainer.state.step, trainer.per_epoch)
        batches = epoch_batches(trainer.session.train_rows, trainer.batch_size, cfg.seed, epoch, start)
        for ready, _ in zip(ahead(batches, trainer._prepare), range(steps - trainer.state.step), strict=False):
            report = trainer.stepper.step(ready, trainer.state)
            labels, tokens = labels + report.encoded["labels"], tokens + report.encoded["tokens"]
            facts.append(dict(report.facts))
        trainer._mine(epoch + 1)
    spent = {"minutes": (time.perf_counter() - began) / 60, "cpu_minutes": (time.process_time() - busy) / 60}
    metrics, _ = trainer.session.evaluate("val")["val"]
    row = {"labels": trainer.session.dataset.n_labels, "bsz": cfg.bsz, "lr": cfg.lr}
    row |= {"labels_per_step": labels / steps, "tokens_per_step": tokens / steps}
    row |= {name: metrics[name] for name in METRICS}
    row |= {f"mean {name}": float(np.mean([fact[name] for fact in facts[steps // 5 :]])) for name in facts[-1]}
    return row | spent


def cut(folder: Path, points: int) -> Path:
    """A data set of `points` training points of another, drawn once, and some test points that are not looked at."""
    out = folder.with_name(f"{folder.name}-{points}")
    if out.exists():
        return out
    (out / "raw").mkdir(parents=True)
    for part, n in (("trn", points), ("tst", 1000)):
        relevance = csr_matrix(load_npz(folder / f"Y.{part}.npz"))
        rows = np.sort(np.random.default_rng(0).permutation(relevance.shape[0])[:n])
        lines = (folder / "raw" / f"{part}_X.txt").read_text(encoding="utf-8").split("\n")
        (out / "raw" / f"{part}_X.txt").write_text("".join(f"{lines[i]}\n" for i in rows), encoding="utf-8")
        save_npz(out / f"Y.{part}.npz", relevance[rows])
    (out / "raw" / "Y.txt").write_bytes((folder / "raw" / "Y.txt").read_bytes())
    return out


def same(one: Row, two: Row) -> bool:
    return all(one[key] == two[key] for key in ("config", "data", "cut", "steps", "seed", "variant", "layers"))


def read(path: Path | None) -> list[Row]:
    return json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else []


def write(path: Path, rows: list[Row]) -> None:
    with atomic_write(path) as file:
        file.write(("[\n" + ",\n".join(" " + json.dumps(row) for row in rows) + "\n]\n").encode())


if __name__ == "__main__":
    main()
