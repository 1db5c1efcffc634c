"""A page as Chromium shows it (Debian and Ubuntu: apt-get install chromium)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)")

# The page in a frame of a given width, as on a phone; what is found there becomes the text of <output>.
PROBE = """<!DOCTYPE html><iframe width="{width}" height="844" src="{page}"></iframe><output></output><script>
onload = () => {{
  const frame = frames[0], root = frame.document.documentElement;
  document.querySelector("output").textContent = JSON.stringify(((frame, root) => ({found}))(frame, root));
}};
</script>"""


def run(*words: str) -> str:
    assert CHROMIUM is not None
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
    return subprocess.run([CHROMIUM, *quiet, *words], capture_output=True, text=True, timeout=120, check=True).stdout


def measure(page: Path, width: int, found: str, scratch: Path) -> Any:
    """The value of the JavaScript expression `found` (over `frame` and `root`) in the page at this width."""
    probe = scratch / "probe.html"
    probe.write_text(PROBE.format(width=width, page=page.resolve().as_uri(), found=found), encoding="utf-8")
    words = ("--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", probe.resolve().as_uri())
    answer = re.search(r"<output>(.*?)</output>", run(*words), re.DOTALL)
    assert answer is not None
    return json.loads(unescape(answer[1]))
