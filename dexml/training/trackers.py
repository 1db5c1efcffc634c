"""Experiment trackers by their Accelerate names, checked before anything starts."""

from __future__ import annotations

from typing import Any

from dexml.config import Config, ConfigError


def tracker_names(cfg: Config) -> list[str]:
    """The trackers that `tracker` lists; ConfigError for one that Accelerate lacks or that is not installed."""
    if cfg.tracker == "none":
        return []
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    names = [name.strip() for name in cfg.tracker.split(",")]
    unknown = [name for name in names if name not in LOGGER_TYPE_TO_CLASS]
    if unknown:
        known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
        raise ConfigError(f"tracker: there is no '{unknown[0]}'; choose from {known}, or none")
    installed = {str(tracker) for tracker in get_available_trackers()}
    missing = [name for name in names if name not in installed]
    if missing:
        raise ConfigError(f"tracker: '{missing[0]}' is not installed: pip install {missing[0].replace('_', '-')}")
    return names


def tracker_config(cfg: Config) -> dict[str, Any]:
    """The config with values that every tracker takes."""
    return {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in cfg.to_dict().items()}
