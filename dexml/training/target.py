"""What `dexml eval` is pointed at: the folder of a run, an exported bundle, or the config files of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dexml.config import Config, ConfigError, load_config

# what a trained model is, how it reads texts and which points are held out
MODEL_KEYS = {
    "net",
    "clf_joint",
    "tf",
    "tf_pooler",
    "tf_max_len",
    "tf_token_type",
    *("text_encoder", "lstm_width", "lstm_start", "attention_output", "linear_size", "cluster_size", "tree_levels"),
    "bottleneck_dim",
    "norm_embs",
    "doc_layers",
    "mhe_kind",
    "mhe_rank",
    "mhe_dim",
    "mhe_table",
    "num_val_points",
}


@dataclass(frozen=True)
class Target:
    """A trained model and the config to evaluate it with."""

    cfg: Config
    trained: Config
    """what the model was trained with"""
    bundle: Path
    """folder of the model"""
    run: Path | None
    """folder of the run whose own data is evaluated, where results are kept; None for a bundle or other data"""
    splits: tuple[str, ...] = ("trn", "tst")
    """what the data folder must hold"""

    @classmethod
    def of(cls, words: Sequence[str], overrides: Sequence[str] = ()) -> Target:
        """From a folder, or config files.

        Raises:
            ConfigError: no run, bundle or config; no exported model; settings that the model was not trained with.
        """
        place = Path(words[0]) if words else Path()
        if len(words) != 1 or not place.is_dir():
            cfg = load_config(words, overrides)
            saved = cfg.out_dir / "config.yaml"
            target = cls(cfg, load_config([saved]) if saved.exists() else cfg, cfg.out_dir / "best", cfg.out_dir)
        elif (place / "config.yaml").is_file():
            target = cls._read(place / "config.yaml", overrides, place / "best", place)
        elif (place / "modules.json").is_file() and (place / "dexml.yaml").is_file():
            target = cls._read(place / "dexml.yaml", overrides, place, None)
        else:
            raise ConfigError(
                f"{place} is neither a run's folder (config.yaml) nor an exported bundle (modules.json, dexml.yaml)"
            )
        target._check()
        return target if target.run else replace(target, cfg=target._self_contained())

    @classmethod
    def _read(cls, file: Path, overrides: Sequence[str], bundle: Path, run: Path | None) -> Target:
        return cls(load_config([file], overrides), load_config([file]), bundle, run)

    def _check(self) -> None:
        if not (self.bundle / "model.safetensors").exists():
            raise ConfigError(
                f"{self.bundle} holds no exported model: has the run of this config ended, with save: true?"
            )
        old, new = self.trained.to_dict(), self.cfg.to_dict()
        changes = [f"{key}: {old[key]} -> {new[key]}" for key in self.cfg.changed(self.trained) if key in MODEL_KEYS]
        if changes:
            raise ConfigError(
                f"{self.bundle} was trained with other settings ({', '.join(changes)}): leave them as they were"
            )

    def _self_contained(self) -> Config:
        """With the encoder and tokenizer of the bundle, wherever it was copied to; no token files are left behind."""
        own = str(self.bundle)
        return self.cfg.model_copy(update={"tf": own, "tf_token_type": own, "data_tokenization": "online"})

    def on(self, folder: Path, split: str) -> Target:
        """The same model on the points and labels of another data folder, which needs no training points."""
        place = folder.resolve()
        if split == "val":
            raise ConfigError(f"val holds out points of the run's own training data, not of {folder}: take trn or tst")
        here = {name for name in ("trn", "tst") if (place / "raw" / f"{name}_X.txt").exists()}
        data = {"data_root": str(place.parent), "dataset": place.name, "num_val_points": 0}
        splits = tuple(sorted(here | ({split} - {"dev"})))
        return replace(self, cfg=self.cfg.model_copy(update=data), run=None, splits=splits)
