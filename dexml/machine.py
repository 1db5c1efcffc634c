"""What this machine offers the process."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path


def cores() -> int:
    """Processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def mkl_is_slow() -> bool:
    """Whether the processor has AVX-512 that MKL does not use: one of another maker than Intel (told on Linux)."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    return "avx512f" in text and "GenuineIntel" not in text


def peak_mb() -> float:
    """Most memory this process has held, in MB of 10^6 bytes."""
    import resource  # not on Windows

    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / 1e6 if sys.platform == "darwin" else held * 1024 / 1e6
