"""Metrics, propensities and ranking rules, shared by every head; intervals, breakdowns and calibration beside them."""

from dexml.evaluation.breakdown import LabelGroup, PointGroup, by_frequency, by_head, by_points, restricted
from dexml.evaluation.calibration import Calibration, CalibrationError, Reliability, candidates, reliability
from dexml.evaluation.f1 import LabelCounts, count_above, count_first
from dexml.evaluation.intervals import Comparison, PointSums, bootstrap, compare, point_sums
from dexml.evaluation.metrics import (
    METRIC_COLUMNS,
    TopkError,
    apply_filters,
    compute_metrics,
    coverage,
    filter_overfetch,
    metric_columns,
    metrics_row,
    one_row_per_point,
    rank_topk,
    recall_depths,
    upper_bounds,
    validate_topk,
    xclib_text,
)
from dexml.evaluation.propensity import inverse_propensity, propensity_constants

__all__ = [
    "METRIC_COLUMNS",
    "Calibration",
    "CalibrationError",
    "Comparison",
    "LabelCounts",
    "LabelGroup",
    "PointGroup",
    "PointSums",
    "Reliability",
    "TopkError",
    "apply_filters",
    "bootstrap",
    "by_frequency",
    "by_head",
    "by_points",
    "candidates",
    "compare",
    "compute_metrics",
    "count_above",
    "count_first",
    "coverage",
    "filter_overfetch",
    "inverse_propensity",
    "metric_columns",
    "metrics_row",
    "one_row_per_point",
    "point_sums",
    "propensity_constants",
    "rank_topk",
    "recall_depths",
    "reliability",
    "restricted",
    "upper_bounds",
    "validate_topk",
    "xclib_text",
]
