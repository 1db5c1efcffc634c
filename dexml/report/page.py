"""The page: what the runs show, put into the template."""

from __future__ import annotations

import importlib.metadata
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import yaml
from jinja2 import Environment, PackageLoader, Template

from dexml import __version__
from dexml.config import CHECKOUT
from dexml.report import curves, examples, results, tables
from dexml.report.breakdowns import breakdown_plots
from dexml.report.calibrations import calibration_plots
from dexml.report.evidence import Evidence, gather
from dexml.report.figures import COLOURS, Plot
from dexml.report.run import Run
from dexml.report.uncertainty import uncertainty_plots

UNSURE = "The run as a member of an ensemble: what its disagreement and its entropies, in nats, are good for."


@dataclass(frozen=True)
class FigureGroup:
    """A section of figures."""

    id: str
    title: str
    lead: str
    plots: list[Plot]


@dataclass(frozen=True)
class Page:
    html: str
    plots: list[Plot]


def build_page(runs: Sequence[Run]) -> Page:
    """The page of these runs and the figures on it."""
    notes = [_unfinished(run) for run in runs if run.tested is None]
    evidence = gather(runs, notes)
    lines = results.metric_lines(runs, evidence, notes)
    unsure = FigureGroup("uncertainty", "Uncertainty", UNSURE, uncertainty_plots(runs, notes))
    groups = [group for group in (*_figure_groups(runs, evidence, notes), unsure) if group.plots]
    kinds = examples.pick(runs, evidence) if evidence else []
    training = [*curves.training_plots(runs), *curves.pace_plots(runs)]
    html = _template().render(
        runs=runs,
        many=len(runs) > 1,
        dataset=runs[0].dataset,
        facts=_facts(runs, evidence),
        notes=notes,
        lines=lines,
        compared=any(any(line.gaps) for line in lines),
        bounded=any(line.bound for line in lines),
        verdict=results.verdict(lines, runs[0].metrics.get("n_docs")),
        metrics_caption=results.caption(lines),
        groups=groups,
        kinds=kinds,
        costs=tables.costs(runs),
        training=training,
        differences=tables.differences(runs),
        config_text=_config_text,
        commands=_commands(runs),
        made=datetime.now(),
        made_with=_made_with(),
        version=__version__,
        colours=COLOURS,
    )
    return Page(html, [plot for group in groups for plot in group.plots] + training)


def _unfinished(run: Run) -> str:
    last = run.evaluations[-1]
    return f"Run {run.letter} is not finished: its metrics are of {run.split} after epoch {last.get('epoch', '?')}."


def _figure_groups(runs: Sequence[Run], evidence: Evidence | None, notes: list[str]) -> list[FigureGroup]:
    if evidence is None:
        return []
    good = "Where it is good, where it is not" if len(runs) == 1 else "Where they are good, where they are not"
    read = "Scores as probabilities, by a temperature and a shift: on the dashed line they keep what they promise."
    return [
        FigureGroup("breakdown", good, "", breakdown_plots(evidence)),
        FigureGroup("calibration", "Calibration", read, calibration_plots(runs, evidence, notes)),
    ]


def _template() -> Template:
    loader = PackageLoader("dexml.report", "templates")
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template("page.html")


def _facts(runs: Sequence[Run], evidence: Evidence | None) -> str:
    """The size of the data and when the runs ended."""
    ended = max(run.ended for run in runs).strftime("%-d %B %Y")
    sizes = ""
    if evidence is not None:
        data = evidence.dataset
        sizes = f"{len(data.trn):,} training texts, {len(data.tst):,} test texts, {data.n_labels:,} labels. "
    return f"{sizes}Run{'s' * (len(runs) > 1)} of {ended}."


def _config_text(run: Run) -> str:
    return yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)


def _commands(runs: Sequence[Run]) -> str:
    again = [["python", "train.py", str(run.path / "config.yaml"), "--expname", f"{run.name}-again"] for run in runs]
    return "\n".join(shlex.join(words) for words in [*again, ["dexml", "report", *(str(run.path) for run in runs)]])


def _made_with() -> str:
    """The versions at hand; those of a run are not recorded."""
    commit = _commit()
    parts = [f"dexml {__version__}" + (f" (commit {commit})" if commit else "")]
    parts.append(f"torch {importlib.metadata.version('torch')}")
    return f"This page was made with {' and '.join(parts)}."


def _commit() -> str:
    """Of the checkout this package is part of; empty for an installed one."""
    if not (CHECKOUT / ".git").exists():
        return ""
    words = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
