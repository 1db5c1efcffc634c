"""Minutes of training until a metric on held-out training points is reached, ours and a peer's.

    python bench/time_to_quality.py --data Datasets/EURLEX57K-Titles --target P@5=58 --max-minutes 120
    python bench/time_to_quality.py --target P@5=58 --peer ../DEXML --peer-python ../DEXML/.venv/bin/python
    python bench/time_to_quality.py --config configs/EURLEX57K-Titles/in-batch.yaml --peer ../DEXML \
        --peer-config configs/EURLEX57K-Titles/dist-de-all_decoupled-softmax.yaml     # each side by its own recipe
    python bench/time_to_quality.py --steps 20 --every 10 --bsz 32       # smaller; --key value as for train.py

The sides take turns: each trains `--every` steps, saves its weights and waits while our evaluator, the same for both,
measures them on the `num_val_points` points that neither trains on. Minutes are those of training steps; loading,
saving and evaluating are left out. Without --target both train their whole budget. Repeats differ in the seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path
    sys.path[0] = str(Path(__file__).absolute().parents[1])

import argparse
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from bench.common import (
    BenchError,
    Side,
    add_arguments,
    bench_config,
    check_comparable,
    check_peer,
    export,
    peer_side,
    ratios,
    spread,
    write_json,
)
from bench.peer.dexml_turns import Handlers, Turns, serve
from dexml.config import Config, ConfigError, load_config
from dexml.data.batching import epoch_batches, steps_per_epoch
from dexml.distributed import World
from dexml.encoders.weights import load_weights
from dexml.session import Session
from dexml.training.step import StepReport
from dexml.training.trainer import Trainer

Run = dict[str, Any]  # curve: evaluations in order; minutes, step: trained; reached: the goal, or the last step


@dataclass(frozen=True)
class Goal:
    """The metric to watch, the value to reach if any, and the minutes of training a side may take."""

    metric: str
    value: float | None
    minutes: float

    @classmethod
    def of(cls, target: str, metric: str, minutes: float) -> Goal:
        """From `P@5=58`, or from an empty text and the metric that is only watched."""
        if not target:
            return cls(metric, None, minutes)
        name, _, value = target.partition("=")
        try:
            return cls(name, float(value), minutes)
        except ValueError:
            raise BenchError(f"--target {target}: give a metric and a percentage, as in P@5=58") from None


@dataclass(frozen=True)
class Plan:
    """Steps of a side's training and between two of its evaluations."""

    steps: int
    every: int

    @classmethod
    def of(cls, args: argparse.Namespace, cfg: Config, points: int) -> Plan:
        steps = args.steps or cfg.num_epochs * steps_per_epoch(points, cfg.bsz * cfg.grad_accum)
        return cls(steps, min(steps, args.every or -(-steps // 10)))


class Paced(Trainer):
    """A training of `steps` steps that waits for its turn after as many of them as the bench asks for."""

    def __init__(self, cfg: Config, steps: int, turns: Turns) -> None:
        super().__init__(cfg)
        self.steps, self.turns = steps, turns

    def _train(self) -> None:
        self.total = self.stepper.total = self.steps
        self._wait()
        super()._train()

    def _tell(self, told: StepReport) -> None:
        super()._tell(told)
        self.losses.append(told.loss)
        if self.state.step in (self.until, self.total):
            seconds = time.perf_counter() - self.began
            self._save_weights()
            self.turns.answer(steps=self.state.step, seconds=seconds, loss=sum(self.losses) / len(self.losses))
            self._wait()

    def _wait(self) -> None:
        request = self.turns.next()
        if request is None:
            sys.exit()
        self.until, self.weights = self.state.step + request["steps"], request["save"]
        self.losses: list[float] = []
        self.began = time.perf_counter()

    def _save_weights(self) -> None:
        import torch

        torch.save(self.session.encoder.state_dict(), self.weights)


class Judge:
    """Evaluates the weights of either side on the held-out points, and hands the data to the peer."""

    def __init__(self, cfg: Config) -> None:
        self.cfg, self.session = cfg, Session(cfg, World())

    @property
    def handlers(self) -> Handlers:
        return {"ready": self.ready, "export": self.export, "evaluate": self.evaluate}

    def ready(self) -> dict[str, Any]:
        return {"labels": self.session.dataset.n_labels, "points": len(self.session.train_rows)}

    def export(self, folder: str, bsz: int, steps: int, seed: int) -> dict[str, Any]:
        """The points to train on in the batches that `Trainer` would draw."""
        rows, session = self.session.train_rows, self.session
        epochs = range(-(-steps // steps_per_epoch(len(rows), bsz)))
        batches = chain.from_iterable(epoch_batches(rows, bsz, seed, epoch) for epoch in epochs)
        points = (batch.points for batch in islice(batches, steps))
        relevance = session.dataset.trn.relevance
        export(Path(folder), session.tokens("trn"), session.tokens("labels"), relevance, points, self.cfg.tf_max_len)
        return {}

    def evaluate(self, weights: str) -> dict[str, Any]:
        load_weights(self.session.encoder, Path(weights))
        metrics, _ = self.session.evaluate("val")["val"]
        return {name: value for name, value in metrics.items() if "@" in name}


def race(sides: dict[str, Side], judge: Side, plans: dict[str, Plan], goal: Goal, folder: Path) -> dict[str, Run]:
    """Trains and evaluates each side in turn until it reaches the goal, its last step or the limit of time."""
    runs: dict[str, Run] = {name: {"curve": [], "minutes": 0.0, "step": 0, "reached": False} for name in sides}
    going = list(sides)
    while going:
        for name in list(going):
            run = runs[name]
            turn(sides[name], judge, plans[name], run, goal, str(folder / f"{name}.pt"))
            if run["reached"] or run["step"] == plans[name].steps or run["minutes"] >= goal.minutes:
                going.remove(name)
    return runs


def turn(side: Side, judge: Side, plan: Plan, run: Run, goal: Goal, weights: str) -> None:
    """Some steps of a side and the evaluation after them, added to its run."""
    done = side.ask("train", steps=plan.every, save=weights)
    metrics = {name: value for name, value in judge.ask("evaluate", weights=weights).items() if "@" in name}
    run["step"], run["minutes"] = done["steps"], run["minutes"] + done["seconds"] / 60
    run["curve"].append({"step": run["step"], "minutes": run["minutes"], "loss": done["loss"], **metrics})
    value = metrics[goal.metric]
    run["reached"] = run["step"] == plan.steps if goal.value is None else value >= goal.value
    print(
        f"{side.name}: step {run['step']} of {plan.steps}, {run['minutes']:.2f} min, {goal.metric} {value:.2f}",
        file=sys.stderr,
    )


def repeat(args: argparse.Namespace, overrides: list[str], goal: Goal, seed: int, folder: Path) -> dict[str, Run]:
    """One training of each side with this seed."""
    cfg, peer_cfg = configs(args, overrides, goal, seed, folder)
    with ExitStack() as stack:
        cfg.dump(folder / "judge.yaml")
        judge = stack.enter_context(our_side(args, "judge", folder / "judge.yaml", folder))
        points = judge.ask("ready")["points"]
        plans = {"ours": Plan.of(args, cfg, points)}
        # a schedule of its own length, and no evaluation of its own before the end
        epochs = plans["ours"].steps + 1
        words = [f"--num_epochs={epochs}", f"--eval_interval={epochs}"]
        load_config([folder / "judge.yaml"], words).dump(folder / "ours.yaml")
        own = our_side(args, "ours", folder / "ours.yaml", folder, plans["ours"].steps)
        sides = {"ours": stack.enter_context(own)}
        if args.peer:
            plans["peer"] = Plan.of(args, peer_cfg, points)
            judge.ask("export", folder=str(folder), bsz=peer_cfg.bsz, steps=plans["peer"].steps, seed=seed)
            sides["peer"] = stack.enter_context(peer_side(args, peer_cfg, folder))
        return race(sides, judge, plans, goal, folder)


def configs(
    args: argparse.Namespace, overrides: list[str], goal: Goal, seed: int, folder: Path
) -> tuple[Config, Config]:
    """Of both sides, once it is clear that they can be compared."""
    forced = {"seed": seed, "track_metric": goal.metric, "results_root": folder / "Results", "resume": "never"}
    forced |= {"save": False, "save_interval": 0, "tracker": "none"}
    cfg = bench_config(args, args.config, overrides, **forced)
    peer_cfg = bench_config(args, args.peer_config or args.config, overrides, **forced)
    if not cfg.num_val_points:
        raise BenchError("num_val_points is 0: quality is judged on held-out training points (give --num_val_points)")
    if cfg.resolved_label_side == "shortlist":
        raise BenchError("label_side shortlist mines at evaluations of its own: take all or in-batch")
    if args.peer:
        check_peer(args)
        check_comparable(peer_cfg)
        for key in ("tf", "tf_pooler", "tf_max_len", "num_val_points", "tf_token_type", "norm_embs"):
            if getattr(cfg, key) != getattr(peer_cfg, key):
                raise BenchError(f"{key} differs between --config and --peer-config: give one with --{key}")
    return cfg, peer_cfg


def our_side(args: argparse.Namespace, name: str, file: Path, folder: Path, steps: int = 0) -> Side:
    command: list[str | Path] = [sys.executable, __file__, "--serve", file, "--steps", str(steps)]
    return Side(name, command, folder, args.threads)


def serve_ours(file: Path, steps: int) -> None:
    """The training side for a number of steps, the judge without one."""
    if steps:
        Paced(load_config([file]), steps, Turns()).fit()
    else:
        serve(lambda: Judge(load_config([file])).handlers)


def summary(runs: list[Run]) -> dict[str, Any]:
    return {
        "minutes": spread([run["minutes"] for run in runs]),
        "reached": [run["reached"] for run in runs],
        "runs": runs,
    }


def compare(ours: list[Run], peer: list[Run]) -> dict[str, Any] | None:
    """How many times longer the peer takes; None unless ours got there every time.

    A peer that did not get there takes longer than it was given: then the figures are lower bounds.
    """
    if not all(run["reached"] for run in ours):
        return None
    found = ratios([run["minutes"] for run in peer], [run["minutes"] for run in ours])
    return {"minutes": found, "at_least": not all(run["reached"] for run in peer)}


def figures(rounds: list[dict[str, Run]]) -> dict[str, Any]:
    """{"ours", "peer", "ratio"} of the repeats; without a peer the last two are None."""
    ours = [runs["ours"] for runs in rounds]
    peer = [runs["peer"] for runs in rounds if "peer" in runs]
    return {
        "ours": summary(ours),
        "peer": summary(peer) if peer else None,
        "ratio": compare(ours, peer) if peer else None,
    }


def print_table(found: dict[str, Any], goal: Goal) -> None:
    target = goal.metric if goal.value is None else f"{goal.metric} >= {goal.value:g}"
    print(f"{found['settings']['data']}: {target} on {found['settings']['num_val_points']} held-out points")
    columns = dict.fromkeys([goal.metric, "P@1", "P@5", "nDCG@5"])
    print(f"{'side':6}{'run':>4}{'steps':>8}{'minutes':>10}{'reached':>9}" + "".join(f"{name:>9}" for name in columns))
    for side in ("peer", "ours"):
        for number, run in enumerate(found[side]["runs"] if found[side] else []):
            last = run["curve"][-1]
            cells = "".join(f"{last[name]:9.2f}" if name in last else f"{'-':>9}" for name in columns)
            reached = "yes" if run["reached"] else "no"
            print(f"{side:6}{number:4}{run['step']:8}{run['minutes']:10.2f}{reached:>9}{cells}")
    if found["ratio"]:
        times, more = found["ratio"]["minutes"], "at least " if found["ratio"]["at_least"] else ""
        print(f"the peer takes {more}{times['median']:.2f} times as long ({times['min']:.2f} to {times['max']:.2f})")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_arguments(parser)
    parser.set_defaults(repeats=1)
    parser.add_argument("--peer-config", type=Path, help="YAML file for the peer (default: --config)")
    parser.add_argument("--target", default="", help="metric and percentage to reach, as in P@5=58")
    parser.add_argument(
        "--steps", type=int, default=0, help="training steps of each side (default: its config's epochs)"
    )
    parser.add_argument("--every", type=int, default=0, help="steps between evaluations (default: a tenth of all)")
    parser.add_argument(
        "--max-minutes", type=float, default=float("inf"), help="of training, looked at after evaluations"
    )
    args, overrides = parser.parse_known_args(argv)
    if args.serve:
        serve_ours(args.serve, args.steps)
        return
    try:
        cfg = bench_config(args, args.config, overrides)
        goal = Goal.of(args.target, cfg.track_metric, args.max_minutes)
        rounds = []
        for seed in range(cfg.seed, cfg.seed + args.repeats):
            with tempfile.TemporaryDirectory(prefix="dexml-bench-") as folder:
                rounds.append(repeat(args, overrides, goal, seed, Path(folder)))
    except (BenchError, ConfigError) as error:
        sys.exit(f"error: {error}")
    settings = {"data": str(cfg.data_dir), "target": args.target, "num_val_points": cfg.num_val_points}
    found = figures(rounds) | {"settings": settings | {"threads": args.threads, "config": cfg.to_dict()}}
    print_table(found, goal)
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main(sys.argv[1:])
