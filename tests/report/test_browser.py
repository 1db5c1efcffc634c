from pathlib import Path

import pytest

from dexml.report.command import write_report
from tests.report.browser import measure, needs_chromium, run
from tests.report.folders import write_data, write_run

pytestmark = needs_chromium


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_never_scrolls_sideways(page: Path, width: int, tmp_path: Path) -> None:
    found = measure(page, width, "[root.scrollWidth, frame.innerWidth]", tmp_path)
    assert found[0] <= found[1]


def test_wide_tables_scroll_in_their_box_on_a_phone(page: Path, tmp_path: Path) -> None:
    box = "frame.document.querySelector('#metrics .scroll')"
    inside, outside = measure(page, 390, f"[{box}.scrollWidth, {box}.clientWidth]", tmp_path)
    assert outside <= 390 < inside


def test_the_page_makes_no_request_and_runs_no_script(page: Path, tmp_path: Path) -> None:
    found = measure(
        page, 1280, "[frame.performance.getEntriesByType('resource').length, root.querySelectorAll('script').length]",
        tmp_path,
    )  # fmt: skip
    assert found == [0, 0]


def test_a_blank_megabyte_of_text_and_one_long_word_stay_in_their_card(tmp_path: Path) -> None:
    write_data(tmp_path, labels=("w" * 100_000, "&" * 5000), long_text="x" * 2_000_000)
    page = write_report([write_run(tmp_path)])
    found = measure(page, 390, "[root.scrollWidth, frame.innerWidth]", tmp_path)
    assert found[0] <= found[1]
    assert page.stat().st_size < 2_000_000


def test_figures_change_their_colours_in_the_dark_scheme(page: Path, tmp_path: Path) -> None:
    used = "frame.getComputedStyle(root.querySelector('svg text')).fill"
    assert measure(page, 390, used, tmp_path) in ("rgb(85, 96, 108)", "rgb(163, 175, 187)")  # --muted of each scheme


def test_the_page_prints(page: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.pdf"
    run(f"--print-to-pdf={target}", page.resolve().as_uri())
    assert target.read_bytes().startswith(b"%PDF")
