"""The bench of heads runs, on a small set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.heads import main


def test_both_heads_take_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--labels", "300", "--bsz", "4", "--width", "8", "--steps", "2", "--threads", "1"]
    main([*words, "--json", str(tmp_path / "out.json"), "--set", "lxml_dim=6", "lxml_topb=2"])
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["grouped parameters"] == 41 * 4 + 41 * 6 + 4 * 75 * 6 and found["plain parameters"] == 300 * 41
    assert found["plain / grouped, processor"] > 0
    assert "plain / grouped, wall" in capsys.readouterr().out
