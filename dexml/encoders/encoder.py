"""`Encoder`: texts in, vectors out; saved as an ordinary sentence-transformers directory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dexml.config import ConfigError
from dexml.data.batching import Ints
from dexml.data.hubfolder import Download
from dexml.data.tokenizer import load_tokenizer, row_tokenizer
from dexml.encoders.directory import Layout, pooling_linear, read_layout, write_layout
from dexml.encoders.encode import embed
from dexml.encoders.pretrained import load_backbone, model_folder, position_limit, quiet, resolve_precision
from dexml.encoders.text import Pooler, TextEncoder

LONGEST = 1 << 20  # tokens; where nothing sets a limit


class Encoder:
    """A text encoder with its tokenizer.

    `Encoder.load("best").encode(["a text"])` gives float32 [1, D]. Texts are cut at `max_len` tokens.
    """

    def __init__(self, model: TextEncoder, tokenizer: Any, max_len: int) -> None:
        self.model, self.tokenizer, self.max_len = model, tokenizer, max_len

    @property
    def width(self) -> int:
        """Width D of the vectors."""
        return self.model.width

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device | None = None,
        pooler: Pooler = "mean",
        max_len: int = 128,
        amp: bool = False,
        trust_remote_code: bool = False,
        **download: Unpack[Download],
    ) -> Encoder:
        """Reads a folder, a Hub id or `package:<python package>/<folder>`.

        Args:
            pooler, max_len: for a plain transformers directory, whose vectors are then normalised; a
                sentence-transformers directory tells its own.
            amp: half precision where the processor has it.
            download: revision, token, cache_dir, local_files_only, for a Hub id.
        Raises:
            ConfigError, DataError: nothing there; unreadable or pickled weights; modules other than transformer,
                pooling, dense, normalize; code that comes with the model, unless trusted.
        """
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        folder = model_folder(str(path), trust_remote_code=trust_remote_code, **download)
        layout = read_layout(folder) or Layout(folder, pooler, normalize=True, max_len=max_len)
        backbone = load_backbone(
            str(layout.transformer), pooling_layer=layout.pooler == "pooler", trust_remote_code=trust_remote_code
        )
        model = TextEncoder(
            backbone,
            layout.pooler,
            len(layout.dense["weight"]) if layout.dense else 0,
            normalize=layout.normalize,
            precision=resolve_precision("auto", amp, device),
        )
        if layout.dense and model.bottleneck is not None:
            _fill(model.bottleneck, layout.dense, folder)
        if layout.pooling_dense:
            _fill(pooling_linear(backbone), layout.pooling_dense, folder)
        tokenizer = load_tokenizer(str(layout.transformer))
        if layout.lowercase:
            _check_lowercase(tokenizer, folder)
        return cls(model.to(device).eval(), tokenizer, _longest(layout.max_len, tokenizer, backbone))

    def encode(self, texts: Sequence[str], batch_size: int = 256, max_len: int | None = None) -> NDArray[np.float32]:
        """Embeddings [N, D] of N texts, stripped, `batch_size` at a time, cut at `max_len` tokens."""
        if isinstance(texts, str):
            raise ValueError(f"encode takes a list of texts, not one text: write [{texts[:20]!r}]")
        rows = row_tokenizer(self.tokenizer, self._length(max_len))

        def gather(chosen: Ints) -> tuple[Ints, Ints]:
            return rows.encode([texts[i].strip() for i in chosen])

        every = np.arange(len(texts))
        return embed(self.model, gather, every, rows.pad_id, batch_size, batch_size * rows.max_len).cpu().numpy()

    def save(self, folder: str | Path) -> None:
        """Writes the directory; `SentenceTransformer(folder)` then gives the same vectors.

        Each file appears complete, modules.json last. ConfigError if sentence-transformers cannot pool like this model.
        """
        folder, model = Path(folder).resolve(), self.model
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.model_max_length, self.tokenizer.padding_side = self.max_len, "right"
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
            partial = Path(name)
            write_layout(partial, model, self.max_len)
            with quiet():
                model.tf.save_pretrained(partial)  # type: ignore[operator]
                self.tokenizer.save_pretrained(partial)
            for file in sorted(partial.rglob("*"), key=lambda file: file.name == "modules.json"):
                if file.is_file():
                    target = folder / file.relative_to(partial)
                    target.parent.mkdir(exist_ok=True)
                    file.replace(target)

    def _length(self, asked: int | None) -> int:
        limit = position_limit(self.model.tf)
        if asked is not None and limit is not None and asked > limit:
            raise ValueError(f"max_len {asked}: this model has positions for {limit} tokens")
        return asked or self.max_len


def _fill(linear: nn.Linear, weights: dict[str, Tensor], folder: Path) -> None:
    wanted, found = tuple(linear.weight.shape), tuple(weights["weight"].shape)
    if wanted != found:
        raise ConfigError(f"{folder}: a Dense module has shape {found}, the modules beside it ask for {wanted}")
    linear.load_state_dict(weights)


def _longest(told: int | None, tokenizer: Any, backbone: nn.Module) -> int:
    """Tokens of the longest text: as told, else what tokenizer and config say, never more than there are positions."""
    config_says = getattr(backbone.config, "max_position_embeddings", None) or LONGEST
    wanted = told or min(tokenizer.model_max_length, config_says)
    return min(wanted, position_limit(backbone) or LONGEST)


def _check_lowercase(tokenizer: Any, folder: Path) -> None:
    normalizer = tokenizer.backend_tokenizer.normalizer
    if normalizer is None or normalizer.normalize_str("A") != "a":
        raise ConfigError(f"{folder}: do_lower_case is not supported; give the tokenizer a Lowercase normalizer")
