import numpy as np

from dexml.evaluation import METRIC_COLUMNS, compute_metrics, metric_columns, metrics_row, xclib_text
from dexml.evaluation.table import metrics_table
from tests.evaluation.examples import csr, e1


def test_tsv_row_has_the_columns_of_dexml() -> None:
    truth, ids = csr([{0}] * 2, 300), np.tile(np.arange(200), (2, 1))
    got = compute_metrics(ids, truth, inv_propensity=np.ones(300))
    assert tuple(metric_columns(got)) == (*METRIC_COLUMNS, "R@200")
    row = dict(zip(metric_columns(got), metrics_row(got), strict=True))
    assert (row["P@1"], row["P@3"], row["MRR@10"], row["R@200"]) == ("100.00", "33.33", "100.00", "100.00")
    assert metric_columns(compute_metrics(ids[:, :10], truth))[-1] == "R@10"


def test_pyxclib_text_form() -> None:
    e = e1()
    got = compute_metrics(e.ids, e.truth, (1, 2, 3, 4, 5), e.q)
    assert xclib_text(got) == (
        "75.00,50.00,41.67,31.25,30.00\n75.00,65.33,67.13,63.91,67.69\n"
        "81.41,78.75,85.12,76.06,89.36\n81.41,81.79,85.85,82.83,87.45"
    )
    assert xclib_text(compute_metrics(e.ids, e.truth, (1, 2, 3, 4, 5))).count("\n") == 1


def test_the_terminal_table_has_a_dash_for_what_was_not_measured() -> None:
    text = metrics_table({"a": {"P@1": 5.0, "P@3": 4.0}, "longer": {"P@1": 12.345}})
    assert text.splitlines() == ["            P@1      P@3", "a          5.00     4.00", "longer    12.35        -"]
