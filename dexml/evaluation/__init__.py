"""Metrics, propensities and ranking rules, shared by every head."""

from dexml.evaluation.metrics import (
    METRIC_COLUMNS,
    TopkError,
    apply_filters,
    compute_metrics,
    filter_overfetch,
    metric_columns,
    metrics_row,
    one_row_per_point,
    rank_topk,
    recall_depths,
    validate_topk,
    xclib_text,
)
from dexml.evaluation.propensity import inverse_propensity, propensity_constants

__all__ = [
    "METRIC_COLUMNS",
    "TopkError",
    "apply_filters",
    "compute_metrics",
    "filter_overfetch",
    "inverse_propensity",
    "metric_columns",
    "metrics_row",
    "one_row_per_point",
    "propensity_constants",
    "rank_topk",
    "recall_depths",
    "validate_topk",
    "xclib_text",
]
