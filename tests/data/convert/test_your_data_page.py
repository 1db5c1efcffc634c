"""docs/your-data.md as a user would follow it: its files are written, its commands run, their output compared."""

import re
import shlex
from pathlib import Path

from dexml.cli import main
from tests.helpers.processes import ROOT

BLOCK = re.compile(r"^```(\w*) ?(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_every_example_gives_the_output_that_the_page_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("Datasets").mkdir()
    for kind, name, content in BLOCK.findall((ROOT / "docs" / "your-data.md").read_text(encoding="utf-8")):
        if name:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(content, encoding="utf-8")
        elif kind == "bash":
            command, *words = shlex.split(content.replace("\\\n", ""))
            assert command == "dexml"
            assert main(words) == 0
        elif kind == "python":
            exec(content, {})
        else:
            assert capsys.readouterr().out == content
