"""`Encoder`: texts in, vectors out; saved as an ordinary sentence-transformers directory.

Module names are written in the spelling of sentence-transformers before 5.4, which every release loads, with pooling
and projection settings spelled out, because their defaults (mean, Tanh) are not ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from dexml.config import ConfigError
from dexml.data.batching import length_chunks, take_padded
from dexml.data.package import resolve_model
from dexml.data.tokenizer import RowTokenizer, load_tokenizer
from dexml.encoders.encode import evaluating
from dexml.encoders.pretrained import load_backbone, resolve_precision
from dexml.encoders.text import Pooler, TextEncoder

POOLING_FLAGS: dict[str, str] = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "last": "pooling_mode_lasttoken",
}
OTHER_FLAGS = ("pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens")
MODULE = "sentence_transformers.models."


class Encoder:
    """A text encoder with its tokenizer.

    `Encoder.load("best").encode(["a text"])` gives float32 [1, D]; `path` may also be a Hub id or
    `package:<python package>/<folder>`, and a plain transformers directory, which is then pooled by `pooler`.
    """

    def __init__(self, model: TextEncoder, tokenizer: Any, max_len: int) -> None:
        self.model, self.tokenizer, self.max_len = model, tokenizer, max_len

    @property
    def width(self) -> int:
        return self.model.width

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        pooler: Pooler = "mean",
        max_len: int = 128,
        amp: bool = False,
        trust_remote_code: bool = False,
    ) -> Encoder:
        """Reads a sentence-transformers directory; `pooler` and `max_len` only serve a plain transformers directory.

        Raises:
            ConfigError, DataError: nothing there, or a module that is not transformer, pooling, dense or normalize.
        """
        device = torch.device(device)
        source = resolve_model(str(path))
        folder = Path(source) if Path(source).is_dir() else _download(source)
        modules = _read(folder / "modules.json", [])
        settings = _Settings.of(folder, modules, pooler, max_len)
        backbone = load_backbone(
            str(folder / settings.transformer),
            pooling_layer=settings.pooler == "pooler",
            trust_remote_code=trust_remote_code,
        )
        model = TextEncoder(
            backbone,
            settings.pooler,
            settings.dense["out_features"] if settings.dense else 0,
            normalize=settings.normalize,
            precision=resolve_precision("auto", amp, device),
        )
        if model.bottleneck is not None:
            model.bottleneck.load_state_dict(settings.dense_weights)
        return cls(model.to(device).eval(), load_tokenizer(str(folder / settings.transformer)), settings.max_len)

    def encode(self, texts: Sequence[str], batch_size: int = 256, max_len: int | None = None) -> NDArray[np.float32]:
        """Embeddings [N, D] of N texts, `batch_size` at a time, cut at `max_len` tokens."""
        rows = RowTokenizer(self.tokenizer, max_len or self.max_len)
        out = np.empty((len(texts), self.width), np.float32)
        with evaluating(self.model):
            for begin in range(0, len(texts), 1 << 16):
                flat, lengths = rows.encode([text.strip() for text in texts[begin : begin + (1 << 16)]])
                offsets = np.concatenate([[0], np.cumsum(lengths)])
                for chunk in length_chunks(lengths, batch_size, batch_size * rows.max_len):
                    ids, sizes = take_padded(flat, offsets, chunk, rows.pad_id)
                    device = self.model.device
                    vectors = self.model(torch.from_numpy(ids).to(device), torch.from_numpy(sizes).to(device))
                    out[begin + chunk] = vectors.float().cpu().numpy()
        return out

    def save(self, folder: Path) -> None:
        """Writes the directory; `SentenceTransformer(folder)` then gives the same vectors."""
        model = self.model
        if model.pooler not in POOLING_FLAGS:
            raise ConfigError(f"tf_pooler: {model.pooler} has no counterpart in sentence-transformers; use cls, mean or last")
        folder.mkdir(parents=True, exist_ok=True)
        model.tf.save_pretrained(folder)  # type: ignore[operator]
        self.tokenizer.model_max_length = self.max_len
        self.tokenizer.save_pretrained(folder)
        names = ["Transformer", "Pooling"] + ["Dense"] * bool(model.bottleneck) + ["Normalize"] * model.normalize
        paths = ["", *(f"{i}_{name}" for i, name in enumerate(names) if i)]
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": MODULE + name}
            for i, (name, path) in enumerate(zip(names, paths, strict=True))
        ]
        _write(folder / "modules.json", modules)
        _write(folder / "sentence_bert_config.json", {"max_seq_length": self.max_len, "do_lower_case": False})
        similarity = "cosine" if model.normalize else "dot"
        prompts = {"__version__": {}, "prompts": {}, "default_prompt_name": None, "similarity_fn_name": similarity}
        _write(folder / "config_sentence_transformers.json", prompts)
        flags = {flag: name == model.pooler for name, flag in POOLING_FLAGS.items()}
        flags |= dict.fromkeys(OTHER_FLAGS, False)
        hidden = model.tf.config.hidden_size  # type: ignore[union-attr]
        _write(folder / paths[1] / "config.json", {"word_embedding_dimension": hidden, **flags})
        if model.bottleneck is not None:
            _save_dense(folder / paths[2], model.bottleneck)


def _save_dense(folder: Path, linear: nn.Linear) -> None:
    sizes = {"in_features": linear.in_features, "out_features": linear.out_features, "bias": True}
    _write(folder / "config.json", {**sizes, "activation_function": "torch.nn.modules.linear.Identity"})
    weights = {f"linear.{name}": value.detach().cpu().contiguous() for name, value in linear.state_dict().items()}
    save_file(weights, folder / "model.safetensors")


class _Settings:
    """What the files of a directory say about pooling, projection, normalisation and length."""

    def __init__(self, pooler: Pooler, max_len: int) -> None:
        self.pooler, self.max_len = pooler, max_len
        self.transformer = ""
        self.dense: dict[str, Any] | None = None
        self.dense_weights: dict[str, torch.Tensor] = {}
        self.normalize = True

    @classmethod
    def of(cls, folder: Path, modules: list[dict], pooler: Pooler, max_len: int) -> _Settings:
        settings = cls(pooler, max_len)
        settings.normalize = not modules
        for module in modules:
            settings._read_module(folder, module["type"].rsplit(".", 1)[-1], folder / module["path"])
        return settings

    def _read_module(self, root: Path, kind: str, folder: Path) -> None:
        match kind:
            case "Transformer":
                self.transformer = str(folder.relative_to(root)) if folder != root else ""
                self.max_len = _read(folder / "sentence_bert_config.json", {}).get("max_seq_length") or self.max_len
            case "Pooling":
                self.pooler = _pooling(_read(folder / "config.json", {}), folder)
            case "Dense":
                self.dense = _read(folder / "config.json", {})
                if not str(self.dense.get("activation_function", "")).endswith("Identity"):
                    raise ConfigError(f"{folder}: only a linear projection is supported, not an activation")
                weights = load_file(folder / "model.safetensors")
                self.dense_weights = {name.removeprefix("linear."): value for name, value in weights.items()}
            case "Normalize":
                self.normalize = True
            case _:
                raise ConfigError(f"{root}: module {kind} is not supported (transformer, pooling, dense, normalize are)")


def _pooling(config: dict[str, Any], folder: Path) -> Pooler:
    if "pooling_mode" in config:  # spelling since sentence-transformers 5.4
        mode = {"lasttoken": "last"}.get(config["pooling_mode"], config["pooling_mode"])
        chosen = [mode] if mode in POOLING_FLAGS else []
    else:
        chosen = [name for name, flag in POOLING_FLAGS.items() if config.get(flag)]
        chosen += [flag for flag in OTHER_FLAGS if config.get(flag)]
    if len(chosen) != 1 or chosen[0] not in POOLING_FLAGS:
        raise ConfigError(f"{folder}: pooling by exactly one of {', '.join(POOLING_FLAGS)} is supported")
    return chosen[0]  # type: ignore[return-value]


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]
    return Path(snapshot_download(hub_id, allow_patterns=wanted))


def _read(path: Path, default: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
