import json
import xml.etree.ElementTree as ET

import pytest

from dexml.data import DataError, Dataset, icd10cm
from dexml.data.builtin import BUILTIN

TABULAR = """<ICD10CM.tabular><chapter><name>1</name><desc>Infections (A00-B99)</desc>
  <section id="A00-A09"><desc>Gut  infections (A00-A09)</desc>
    <diag><name>A00</name><desc>Cholera</desc>
      <diag><name>A00.0</name><desc>Cholera, classic</desc>
        <inclusionTerm><note>Classical cholera</note></inclusionTerm>
      </diag>
      <diag><name>A00.9</name><desc>Cholera, unspecified</desc></diag>
    </diag>
  </section>
</chapter></ICD10CM.tabular>"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("simple_icd_10_cm")
    return BUILTIN["icd10cm"].make(tmp_path_factory.mktemp("root") / "ICD10CM", [])


def test_icd10cm_has_the_published_counts(built):
    data = Dataset.load(built)
    assert (len(data.trn), len(data.tst), data.n_labels) == (39_921, 9_981, 16_363)
    assert json.loads((built / "stats.json").read_text())["dataset"] == "ICD10CM"
    assert not any("empty" in notice or "no label" in notice for notice in data.notices if "point" in notice[:20])


def test_a_term_has_its_code_and_the_codes_above_it():
    codes = icd10cm._codes(ET.fromstring(TABULAR))
    assert [code.code for code in codes] == ["1", "A00-A09", "A00", "A00.0", "A00.9"]
    assert [code.path for code in codes] == [(0,), (0, 1), (0, 1, 2), (0, 1, 2, 3), (0, 1, 2, 4)]
    assert codes[1].description == "Gut infections (A00-A09)"


def test_a_lowest_code_without_terms_is_no_label(monkeypatch):
    monkeypatch.setattr(icd10cm, "_tabular_list", lambda: ET.fromstring(TABULAR))
    points = dict(icd10cm._points()[0])
    above = ["1 Infections (A00-B99)", "A00 Cholera", "A00-A09 Gut infections (A00-A09)"]
    assert points["Cholera, unspecified"] == above
    assert points["Classical cholera"] == points["Cholera, classic"] == sorted([*above, "A00.0 Cholera, classic"])


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install simple-icd-10-cm==1\.5\.0"):
        icd10cm.build_icd10cm(tmp_path / "ICD10CM")
    assert not list(tmp_path.iterdir())
