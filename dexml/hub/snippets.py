"""Code for a model card: how to predict with a bundle, each snippet complete as it is printed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from dexml.encoders.directory import Layout, read_layout
from dexml.hub.bundle import BIAS, EMBEDDINGS, LABELS

K = 5
POOLED = {
    "cls": "states[:, 0]",
    "mean": "(states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)",
    "last": "states[torch.arange(len(states)), mask.sum(1) - 1]",
}


def snippets(folder: Path, name: str, text: str, on_hub: bool) -> list[tuple[str, str, str]]:
    """(heading, language, code) of each way to use the bundle in `folder`, which others load as `name`.

    Those that need no dexml come last, where there are such ways.
    """
    ways = [
        ("On the command line", "bash", f"dexml predict {shlex.quote(name)} {shlex.quote(text)}\n"),
        ("With dexml", "python", _with_dexml(name, text)),
    ]
    layout = read_layout(folder)
    if (folder / EMBEDDINGS).exists() and not _biased(folder):
        ways.append(("With sentence-transformers alone", "python", _with_sentence_transformers(name, text, on_hub)))
        if layout is not None and layout.pooler in POOLED:
            ways.append(("With transformers alone", "python", _with_transformers(layout, name, text, on_hub)))
    return ways


def _biased(folder: Path) -> bool:
    return bool(json.loads((folder / "index" / "index.json").read_text(encoding="utf-8"))["meta"].get(BIAS))


def _with_dexml(name: str, text: str) -> str:
    return f"""\
from dexml.hub.bundle import Bundle

bundle = Bundle.load({json.dumps(name)})
for label, score in bundle.predict([{_quoted(text)}], k={K})[0]:
    print(f"{{score:.3f}} {{label}}")
"""


def _with_sentence_transformers(name: str, text: str, on_hub: bool) -> str:
    download = "from huggingface_hub import snapshot_download\n" * on_hub
    return f"""\
from pathlib import Path

{download}from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer

{_folder(name, on_hub)}
encoder = SentenceTransformer(str(folder))
vectors = encoder.encode([{_quoted(text)}])
{_best()}"""


def _with_transformers(layout: Layout, name: str, text: str, on_hub: bool) -> str:
    download = "from huggingface_hub import snapshot_download\n" * on_hub
    lines = [f"vectors = {POOLED[layout.pooler]}"]
    if layout.dense is not None:
        path = next(path for path in _modules(layout.transformer) if path.endswith("_Dense"))
        lines += [
            f'dense = load_file(folder / "{path}/model.safetensors")',
            'vectors = vectors @ torch.from_numpy(dense["linear.weight"]).T + torch.from_numpy(dense["linear.bias"])',
        ]
    lines += ["vectors = torch.nn.functional.normalize(vectors)"] * layout.normalize
    pooled = "\n".join(lines)
    return f"""\
from pathlib import Path

import torch
{download}from safetensors.numpy import load_file
from transformers import AutoModel, AutoTokenizer

{_folder(name, on_hub)}
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
tokens = tokenizer([{_quoted(text)}], padding=True, truncation=True, max_length={layout.max_len}, return_tensors="pt")
with torch.no_grad():
    states, mask = model(**tokens).last_hidden_state, tokens["attention_mask"]
{pooled}
vectors = vectors.numpy()
{_best()}"""


def _folder(name: str, on_hub: bool) -> str:
    return f"folder = Path({f'snapshot_download({json.dumps(name)})' if on_hub else json.dumps(name)})"


def _best() -> str:
    return f"""\
labels = (folder / "{LABELS}").read_bytes().decode().split("\\n")
scores = vectors @ load_file(folder / "{EMBEDDINGS}")["labels"].T
for i in (-scores[0]).argsort()[:{K}]:
    print(f"{{scores[0, i]:.3f}} {{labels[i]}}")
"""


def _modules(folder: Path) -> list[str]:
    return [module["path"] for module in json.loads((folder / "modules.json").read_text(encoding="utf-8"))]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
