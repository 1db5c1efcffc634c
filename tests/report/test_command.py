import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from dexml.cli import main
from tests.report.folders import write_run


def test_the_page_goes_into_the_folder_of_the_first_run_or_where_it_is_sent(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(write_run(root, "one")), str(write_run(root, "two"))]
    assert main(["report", *runs]) == 0
    assert capsys.readouterr().out == f"{runs[0]}/report/index.html\n"
    assert main(["report", runs[1], "--out", str(root / "talk")]) == 0
    assert (root / "talk" / "index.html").exists()
    assert not (root / runs[1] / "report").exists()


def test_a_folder_that_is_no_run_is_one_line_and_status_2(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(root)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {root} holds neither metrics.json nor")


def test_the_help_needs_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys; from dexml.report.command import report_command\n"
        "try: report_command(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'matplotlib', 'scipy', 'jinja2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_template_and_style_are_files_of_the_package() -> None:
    assert {"page.html", "page.css"} <= {file.name for file in files("dexml.report").joinpath("templates").iterdir()}
