"""`dexml report RUN [RUN ...]`: reads the runs, writes the page and its figures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dexml.report.run import ReportError, read_runs

if TYPE_CHECKING:
    from dexml.data.findings import Finding
    from dexml.data.statistics import Statistics


def report_command(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="dexml report", description="One HTML page about runs, side by side.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="Results/<project>/<dataset>/<expname>")
    parser.add_argument("--out", type=Path, help="folder of the page and its PNGs (default: report/ in the first RUN)")
    args = parser.parse_args(words)
    print(write_report(args.runs, args.out))


def write_report(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Writes index.html and a PNG a figure into `out` and returns the page's path.

    The first run is the one the others are compared with; `out` defaults to its report/ folder. ReportError names a
    folder that is no run, runs that cannot be compared, or what has to be installed.
    """
    runs = read_runs(list(paths))
    from dexml.data.files import atomic_write

    try:
        from dexml.report.page import build_page
    except ModuleNotFoundError as error:
        raise ReportError(f"a report needs {error.name}: pip install 'dexml[report]'") from error

    folder = out or paths[0] / "report"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{folder}: cannot make that folder ({error}): name another with --out") from error
    page = build_page(runs)
    for plot in page.plots:
        with atomic_write(folder / f"{plot.name}.png") as file:
            file.write(plot.png)
    with atomic_write(folder / "index.html") as file:
        file.write(page.html.encode())
    return folder / "index.html"


def write_data_page(statistics: Statistics, findings: Sequence[Finding], path: Path) -> Path:
    """Writes the page of a data folder, one file without outside parts; ReportError names what has to be installed."""
    from dexml.data.files import atomic_write

    try:
        from dexml.report.datapage import build_data_page
    except ModuleNotFoundError as error:
        raise ReportError(f"a page needs {error.name}: pip install 'dexml[report]'") from error
    html = build_data_page(statistics, findings)
    with atomic_write(path) as file:
        file.write(html.encode())
    return path
