import numpy as np
import pytest

pytest.importorskip("jinja2")

from dexml.data import Dataset
from dexml.data.findings import all_findings
from dexml.data.statistics import Statistics
from dexml.report.command import write_data_page
from dexml.report.datapage import BINS, bin_edges, bin_names
from tests.helpers.datasets import make_toy
from tests.report.browser import measure, needs_chromium


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0, 0, 0], ["0"]),
        ([1, 2, 2, 3], ["1", "2", "3"]),
        ([1] * 999 + [5000], ["1+"]),
        (range(1, 10), ["1", "2", "3", "4", "5", "6", "7", "8", "9"]),
        ([1, *[7] * 500, *[8] * 500, 9], ["≤ 7", "8+"]),
    ],
)
def test_few_numbers_have_a_bin_each(values, names):
    values = np.array(values)
    assert bin_names(bin_edges(values), values) == names


@pytest.mark.parametrize("low", [0, 1, 40])
def test_many_numbers_have_ever_wider_bins(low):
    values = np.arange(low, 5000)
    edges = bin_edges(values)
    names = bin_names(edges, values)
    assert len(names) == len(edges) <= BINS
    assert (np.diff(edges, 2) >= 0).all() and names[-1].endswith("+")


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_of_the_page(tmp_path, width):
    statistics = Statistics(Dataset.load(make_toy(tmp_path / "Toy")))
    page = write_data_page(statistics, all_findings(statistics), tmp_path / "page.html")
    assert measure(page, width, "root.scrollWidth", tmp_path) <= width
