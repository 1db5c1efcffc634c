import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dexml.report.command import write_report
from dexml.report.run import ReportError
from tests.report.folders import HOSTILE, write_data, write_run

VOID = {"meta", "link", "br", "path", "use", "rect", "circle", "line", "polyline", "polygon"}


class Outline(HTMLParser):
    """Every element must be closed; collects what the tests ask about."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def outline(page: Path) -> Outline:
    return Outline(page.read_text(encoding="utf-8"))


def sections(path: Path) -> list[str]:
    return re.findall(r'<section id="([^"]*)"', path.read_text(encoding="utf-8"))


def test_a_page_has_every_section_and_a_picture_of_every_figure(page: Path, outline: Outline) -> None:
    assert sections(page) == [
        "metrics", "breakdown", "calibration", "examples", "training", "settings", "reproduce",
    ]  # fmt: skip
    assert len(list(page.parent.glob("*.png"))) == outline.tags.count("figure") == outline.tags.count("svg")


def test_hostile_texts_are_shown_as_texts(outline: Outline) -> None:
    assert not {"script", "b>"} & set(outline.tags)
    shown = "".join(outline.text)
    for text in (HOSTILE[0], HOSTILE[1], HOSTILE[4], HOSTILE[5], "</script><script>alert(1)</script>", "sharp <b>&"):
        assert text in shown
    assert "$blurred$ {{name}}" in shown


def test_long_labels_end_in_an_ellipsis(outline: Outline) -> None:
    cut = [text for text in outline.text if text.startswith("WWWW")]
    assert cut and all(len(text) <= 90 and text.endswith("…") for text in cut)


def test_nothing_is_fetched_from_anywhere(page: Path, outline: Outline) -> None:
    links = [value for _, name, value in outline.attributes if name in ("href", "src", "srcset", "xlink:href")]
    assert all(value.startswith("#") or value == "data:," for value in links)
    style = page.read_text(encoding="utf-8")
    assert "@import" not in style
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", style))


def test_ids_are_unique_and_links_lead_somewhere(outline: Outline) -> None:
    ids = [value for _, name, value in outline.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for _, name, value in outline.attributes if name == "href" and value != "data:,"} <= set(ids)


def test_figures_say_in_words_what_they_show(outline: Outline) -> None:
    alternatives = [value for tag, name, value in outline.attributes if tag == "div" and name == "aria-label"]
    images = [value for _, name, value in outline.attributes if (name, value) == ("role", "img")]
    assert len([text for text in alternatives if "run A: " in text]) == len(images)


def test_only_settings_that_differ_are_compared(page: Path) -> None:
    table = re.search(r"Settings that differ.*?</table>", page.read_text(encoding="utf-8"), re.DOTALL)
    assert table is not None
    assert re.findall(r'<th scope="row">(.*?)</th>', table[0]) == ["desc", "lr"]


@pytest.mark.parametrize(
    ("missing", "left", "told"),
    [
        (["tst_score_mat.npz"], ["metrics", "training", "settings", "reproduce"], "no tst_score_mat.npz"),
        (["log.txt", "metrics.jsonl"],
         ["metrics", "breakdown", "calibration", "examples", "settings", "reproduce"], ""),
        (["metrics.json"], ["metrics", "breakdown", "calibration", "examples", "training", "settings", "reproduce"],
         "not finished: its metrics are of val after epoch 3"),
        (["config.yaml"], ["metrics", "breakdown", "calibration", "examples", "training", "settings", "reproduce"], ""),
    ],
)  # fmt: skip
def test_a_missing_part_is_left_out_with_a_note(root: Path, missing: list[str], left: list[str], told: str) -> None:
    run = write_run(root)
    for name in missing:
        (run / name).unlink()
    page = write_report([run])
    Outline(page.read_text(encoding="utf-8"))
    assert sections(page) == left
    assert told in page.read_text(encoding="utf-8")


def test_damaged_scores_are_a_note_and_no_error(root: Path) -> None:
    run = write_run(root)
    (run / "tst_score_mat.npz").write_bytes(b"PK nonsense")
    assert "cannot be read" in write_report([run]).read_text(encoding="utf-8")


def test_scores_of_another_data_set_are_a_note_and_no_error(root: Path) -> None:
    run = write_run(root)
    write_data(root, n_labels=31)
    assert "40 points x 30 labels, the data 40 x 31" in write_report([run]).read_text(encoding="utf-8")


def test_a_moved_checkout_finds_its_data_from_the_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(root, data_root="Datasets")
    monkeypatch.chdir("/")
    assert "breakdown" in sections(write_report([run]))


def test_a_folder_that_cannot_be_made_is_one_error(root: Path) -> None:
    (root / "file").write_text("")
    with pytest.raises(ReportError, match="name another with --out"):
        write_report([write_run(root)], root / "file" / "report")


def test_other_files_in_the_folder_stay(root: Path) -> None:
    (root / "out").mkdir()
    (root / "out" / "notes.png").write_bytes(b"mine")
    write_report([write_run(root)], root / "out")
    assert (root / "out" / "notes.png").read_bytes() == b"mine"


def test_without_its_data_folder_a_run_still_has_metrics_and_curves(root: Path) -> None:
    run = write_run(root)
    (root / "Datasets").rename(root / "Elsewhere")
    page = write_report([run])
    assert sections(page) == ["metrics", "training", "settings", "reproduce"]
    assert "data folder of Made was not found" in page.read_text(encoding="utf-8")
