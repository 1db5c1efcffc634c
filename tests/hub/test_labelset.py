import errno
from pathlib import Path

import numpy as np
import pytest

from dexml.data.files import DataError
from dexml.hub import labelset
from dexml.hub.bundle import Bundle
from dexml.hub.labelset import CHANGES, LabelSet
from tests.hub.test_bundle import LABELS, TEXTS, make_bundle

NAMES = LABELS[:6]  # without the empty one


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path, NAMES)


def found(labels: LabelSet) -> list[list[str]]:
    return [[label for label, _ in row] for row in labels.bundle.predict(TEXTS, k=100)]


def test_an_added_label_is_predicted_at_once_and_after_a_restart(bundle: Path) -> None:
    labels = LabelSet.load(bundle)
    assert labels.add(["  the old red fox ", "silver violin"]) == [6, 7]
    text, score = labels.bundle.predict(["the old red fox"], k=1)[0][0]
    assert (text, score) == ("the old red fox", pytest.approx(1, abs=1e-5))
    again = LabelSet.load(bundle)
    assert found(again) == found(labels) and len(again) == 8
    assert list(again.bundle.labels) == [*NAMES, "the old red fox", "silver violin"]


def test_ids_stay_and_are_never_used_again(bundle: Path) -> None:
    labels = LabelSet.load(bundle)
    labels.add(["silver violin", "a lamp"])
    labels.remove([0, 7])
    assert len(LabelSet.load(bundle)) == 6
    assert LabelSet.load(bundle).add(["a lamp", "red fox"]) == [8, 9]
    again = LabelSet.load(bundle)
    assert again.bundle.index.ids.tolist() == [1, 2, 3, 4, 5, 6, 8, 9]
    assert again.bundle.labels[8:] == ["a lamp", "red fox"] and again.bundle.labels[-1] == "red fox"


def test_the_changed_set_scores_like_a_bundle_of_the_final_labels(bundle: Path, tmp_path: Path) -> None:
    labels = LabelSet.load(bundle)
    labels.add(["silver violin"])
    labels.remove([1, 4])
    (tmp_path / "other").mkdir()
    fresh = Bundle.load(
        make_bundle(tmp_path / "other", ["red fox", "green\ttower", "gold\x0blamp", LABELS[5], "silver violin"])
    )
    ids, scores = fresh.search(TEXTS, 5)
    changed_ids, changed_scores = labels.bundle.search(TEXTS, 5)
    assert (np.array([0, 2, 3, 5, 6])[ids] == changed_ids).all()
    np.testing.assert_allclose(scores, changed_scores, atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["silver violin", " "], "'' cannot be a label: a label is one line"),
        (["silver\nviolin"], r"'silver\\nviolin' cannot be a label"),
        (["silver violin", "silver violin "], "'silver violin' is given twice"),
        (["silver violin", "red fox"], "'red fox' is a label already: id 0"),
    ],
)
def test_a_text_that_cannot_be_a_new_label_changes_nothing(bundle: Path, texts: list[str], message: str) -> None:
    labels = LabelSet.load(bundle)
    before = found(labels)
    with pytest.raises(DataError, match=message):
        labels.add(texts)
    assert found(labels) == before and not (bundle / CHANGES).exists()


@pytest.mark.parametrize("ids", [[0, 6], [-1], [2, 2]])
def test_ids_of_no_label_remove_nothing(bundle: Path, ids: list[int]) -> None:
    labels = LabelSet.load(bundle)
    with pytest.raises(DataError, match="is not there, or given twice: nothing was removed"):
        labels.remove(ids)
    assert len(labels) == 6 and not (bundle / CHANGES).exists()


def test_a_full_disk_leaves_labels_as_they_were(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = LabelSet.load(bundle)
    labels.add(["silver violin"])
    before, kept = found(labels), (bundle / CHANGES).read_bytes()

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(labelset, "atomic_write", full)
    for change in (lambda: labels.add(["a lamp"]), lambda: labels.remove([0])):
        with pytest.raises(OSError, match="No space"):
            change()
    assert found(labels) == before and (bundle / CHANGES).read_bytes() == kept
    monkeypatch.undo()
    assert labels.add(["a lamp"]) == [7]


def test_changes_in_memory_touch_no_file(bundle: Path) -> None:
    labels = LabelSet(Bundle.load(bundle))
    labels.add(["silver violin"])
    assert len(labels) == 7 and not (bundle / CHANGES).exists()


def test_labels_that_were_learnt_one_by_one_cannot_change(bundle: Path) -> None:
    settings = bundle / "dexml.yaml"
    settings.write_text(settings.read_text().replace("net: dist-de-all", "net: dist-clf-net"))
    labels = LabelSet.load(bundle)
    for change in (lambda: labels.add(["a lamp"]), lambda: labels.remove([0])):
        with pytest.raises(DataError, match="it has learnt them one by one"):
            change()


def test_a_bundle_is_loaded_with_its_changes(bundle: Path) -> None:
    LabelSet.load(bundle).add(["silver violin"])
    assert Bundle.load(bundle).labels[6] == "silver violin"


def test_two_processes_do_not_overwrite_each_other(bundle: Path) -> None:
    one, other = LabelSet.load(bundle), LabelSet.load(bundle)
    one.add(["silver violin"])
    with pytest.raises(DataError, match="another process changed the labels meanwhile"):
        other.add(["a lamp"])
    assert len(other) == 6 and LabelSet.load(bundle).bundle.labels[6:] == ["silver violin"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "does not hold changes of labels"),
        ('{"labels_sha256": "", "added": [], "removed": []}', "changes of other labels"),
        ('{"labels_sha256": "", "added": [1], "removed": []}', "'added' must be texts"),
    ],
)
def test_a_file_of_changes_that_does_not_belong_is_refused(bundle: Path, content: str, message: str) -> None:
    (bundle / CHANGES).write_text(content)
    with pytest.raises(DataError, match=message):
        LabelSet.load(bundle)
