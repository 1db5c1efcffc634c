import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexml.report.figures import COLOURS, Plot, Series, _apart, curve, groups


@pytest.fixture(scope="module")
def plots() -> list[Plot]:
    two = [Series("A", [1, 2, 4], [10, 20, 15]), Series("B", [1, 2, 4], [11, 19, 15.1], [8, 17, 14], [12, 20, 16])]
    placed = [Series(one.letter, range(3), one.y, one.low, one.high) for one in two]
    bound = Series("", [1, 4], [50, 60])
    return [
        curve("line", "Line", "", two, x_label="x", y_label="y", bound=bound, log_x=True),
        groups("dots", "Dots", "", ["a", "<b>", "$c$"], placed, x_label="x", y_label="y"),
        groups("bars", "Bars", "", ["a", "b", "c"], placed[1:], x_label="x", y_label="y"),
    ]


def test_every_colour_follows_the_scheme_of_the_page(plots: list[Plot]) -> None:
    for plot in plots:
        assert not re.findall(r"#[0-9a-f]{6}\b", plot.svg)
        assert set(re.findall(r"var\(--(\w+)\)", plot.svg)) <= set(COLOURS)


def test_ids_carry_the_name_of_the_figure(plots: list[Plot]) -> None:
    for plot in plots:
        assert all(name.startswith(f"{plot.name}-") for name in re.findall(r' id="([^"]*)"', plot.svg))
        assert all(name.startswith(f"#{plot.name}-") for name in re.findall(r'href="([^"]*)"', plot.svg))


def test_figures_are_the_same_every_time() -> None:
    one, two = (groups("g", "G", "", ["a"], [Series("A", [0], [1])], x_label="", y_label="") for _ in range(2))
    assert (one.svg, one.png) == (two.svg, two.png)


def test_pictures_are_png_and_names_are_text(plots: list[Plot]) -> None:
    assert all(plot.png.startswith(b"\x89PNG") for plot in plots)
    assert "&lt;b&gt;" in plots[1].svg and "$c$" in plots[1].svg


def test_words_tell_the_values(plots: list[Plot]) -> None:
    assert plots[0].alt == "Line. run A: 1: 10, 2: 20, 4: 15; run B: 1: 11, 2: 19, 4: 15.1."
    assert plots[2].alt == "Bars. a: 11, b: 19, c: 15.1."


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=6), st.floats(0.1, 10))
def test_letters_keep_their_order_and_distance(values: list[float], gap: float) -> None:
    placed = np.array(_apart(values, gap))
    order = np.argsort(values, kind="stable")
    assert (np.diff(placed[order]) >= gap - 1e-6).all()
    if (np.diff(np.array(values)[order]) >= gap).all():
        assert np.allclose(placed, values)
