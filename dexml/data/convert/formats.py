"""The formats by name, and which one a source is in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexml.data.convert import beir, folders, hf, tabbed, tables, xmc
from dexml.data.convert.records import Options, Source
from dexml.data.files import DataError


@dataclass(frozen=True)
class Format:
    what: str
    read: Callable[[Any, Options], Source]
    fits: Callable[[Path], bool]


def _named(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and path.name.removesuffix(".gz").lower().endswith(suffixes)


def _bow(path: Path) -> bool:
    return xmc.fits_bow(path) and not folders.fits_folder(path)  # these have raw texts, too


def _never(path: Path) -> bool:
    return False


FORMATS = {
    "csv": Format("a table with a header: .csv, .tsv", tables.read_csv, _named(".csv", ".tsv")),
    "jsonl": Format("one JSON object a line: .jsonl", tables.read_jsonl, _named(".jsonl", ".ndjson")),
    "parquet": Format("a Parquet file", tables.read_parquet, _named(".parquet")),
    "tables": Format("a folder of train.*, test.* in one of these", tables.read_tables, tables.fits_tables),
    "xmc-json": Format("trn.json.gz, tst.json.gz, lbl.json.gz", xmc.read_json, xmc.fits_json),
    "xmc-bow": Format("train.txt of `l1,l2 f:v`, with --vocab", xmc.read_bow, _bow),
    "beir": Format("corpus.jsonl, queries.jsonl, qrels/", beir.read_beir, beir.fits_beir),
    "folder": Format(
        "texts with Y.trn.npz, trn_X_Y.txt or train_labels.txt: dexml, NGAME, AttentionXML, LightXML, XR-Transformer",
        folders.read_folder,
        folders.fits_folder,
    ),
    "hf-disk": Format("a folder of datasets' save_to_disk", hf.read_saved, hf.fits_saved),
    "hf": Format("a Hub id, owner/name or owner/name:config", hf.read_hub, _never),
    "libmultilabel": Format("lines `id<TAB>labels<TAB>text`", tabbed.read_libmultilabel, _never),
    "pecos": Format("lines `0,5<TAB>text`, output-items.txt", tabbed.read_pecos, _never),
}


def formats_table() -> str:
    return "\n".join(f"  {name:14} {form.what}" for name, form in FORMATS.items())


def read(source: Any, options: Options, form: str | None = None) -> Source:
    """Opens a path, a Hub id (form "hf"), or a data set in memory; DataError lists the formats if it is unclear."""
    if not isinstance(source, str | Path):
        return hf.read_dataset(source, options)
    if form == "hf":
        return hf.read_hub(str(source), options)
    path = Path(source)
    if not path.exists():
        raise DataError(f"{source}: no such file or folder (a data set of the Hub needs --format hf)")
    return FORMATS[form or detect(path)].read(path, options)


def detect(path: Path) -> str:
    """The format of a path; DataError lists what there is where none or several fit."""
    fitting = [name for name, form in FORMATS.items() if form.fits(path)]
    if len(fitting) == 1:
        return fitting[0]
    what = f"may be {' or '.join(fitting)}" if fitting else "has no format that shows from outside"
    raise DataError(f"{path} {what}: choose with --format\n{formats_table()}")
