"""nilesh2797/DEXML from a checkout as one side of a bench, in a Python that has transformers 4.

bench/step.py and bench/time_to_quality.py start it: PEER_PYTHON dexml_adapter.py SETTINGS.json. It adds what that code
lacks on a CPU with a small encoder and changes none of its arithmetic: no unused pooling layer, which would get no
gradient and crash it, the width of the encoder instead of 768, and Accelerator(cpu=True). Data, tokens and batches are
those that `bench.common.export` wrote.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from dexml_turns import Handlers, serve  # type: ignore[import-not-found]


def model_with_dropout(source: Path, dropout: float | None, target: Path) -> Path:
    """The model folder, its dropout probabilities replaced: a number stands for all of them, None keeps them."""
    if dropout is None:
        return source
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.name != "config.json":
            (target / file.name).symlink_to(file)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    numbers = {key for key, value in config.items() if type(value) in (int, float)}
    config |= {key: dropout for key in numbers if "drop" in key}
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return target


class Peer:
    """The peer's network, loss, collation and optimiser, on the exported data."""

    def __init__(self, settings: dict[str, Any]) -> None:
        torch.set_num_threads(settings["num_threads"])
        torch.manual_seed(settings["seed"])
        folder = Path(settings["folder"])
        tf = model_with_dropout(Path(settings["tf"]), settings["tf_dropout"], folder / "peer-model")
        relevance = sp.csr_matrix(sp.load_npz(folder / "Y.npz"))
        extra = {"tf": str(tf), "numy": relevance.shape[1], "embs_dim": 768, "num_gpu": 1, "amp_encode": False}
        self.args = Namespace(**settings | extra)
        self.points, self.offsets = (np.load(folder / f"{name}.npy") for name in ("points", "offsets"))
        self._data(folder, relevance)
        self._network()
        self.done = 0

    def _data(self, folder: Path, relevance: sp.csr_matrix) -> None:
        from datasets import OfflineBertDataset, TwoTowerDataset, TwoTowerTrainCollator

        shared = self.args.tf_max_len, self.args.tokenizer
        queries = OfflineBertDataset(str(folder / "x.dat"), relevance, *shared)
        self.labels = OfflineBertDataset(str(folder / "y.dat"), relevance.T.tocsr(), *shared)
        self.collate = TwoTowerTrainCollator(TwoTowerDataset(queries, self.labels), neg_type="none")

    def _network(self) -> None:
        from accelerate import Accelerator
        from losses import LOSSES  # type: ignore[import-not-found]
        from nets import DistDualEncoderAll  # type: ignore[import-not-found]

        net = DistDualEncoderAll(self.args, Accelerator(cpu=True), Namespace(lbl_dataset=self.labels))
        if getattr(net.tf, "pooler", None) is not None:
            net.tf.pooler = None
        net.tf_dims = net.embs_dim = net.tf.config.hidden_size
        self.net, self.loss = net.train(), LOSSES["sim-loss"](self.args)

    def _gradient(self, batch: int) -> float:
        """The peer's step up to the optimiser: its collation, forward and cached backward; the loss."""
        rows = self.points[self.offsets[batch] : self.offsets[batch + 1]]
        inputs = self.collate([{"index": int(row)} for row in rows])
        return float(self.net.forward_backward(inputs, self.loss.compute_loss, None))

    def ready(self) -> dict[str, Any]:
        return {"torch": torch.__version__, "steps": len(self.offsets) - 1}

    def step(self, batch: int, gradient: str = "") -> dict[str, Any]:
        """Seconds and loss of one gradient; `gradient` names the file (.npz) to keep it in."""
        began = time.perf_counter()
        loss = self._gradient(batch)
        seconds = time.perf_counter() - began
        if gradient:
            np.savez(gradient, **{name: p.grad.numpy() for name, p in self.net.named_parameters()})
        self.net.zero_grad()
        return {"seconds": seconds, "loss": loss}

    def train(self, steps: int, save: str) -> dict[str, Any]:
        """The next `steps` updates of the run, and the weights after them in the file `save`."""
        if not self.done:
            self._optimiser()
        losses, began = [], time.perf_counter()
        for batch in range(self.done, min(self.done + steps, len(self.offsets) - 1)):
            losses.append(self._gradient(batch))
            self.optimiser.step_and_zero_grad()
        seconds = time.perf_counter() - began
        self.done += len(losses)
        self.net.save(save)
        return {"steps": self.done, "seconds": seconds, "loss": float(np.mean(losses))}

    def _optimiser(self) -> None:
        from optimizer_bundles import OPTIM_BUNDLES  # type: ignore[import-not-found]

        self.optimiser = OPTIM_BUNDLES["base"](self.args)
        self.optimiser.inject_params(self.net)
        self.args.num_epochs = 1  # its schedule counts epochs x steps of an epoch
        self.optimiser.init_schedulers(self.args, len(self.offsets) - 1)
        self.optimiser.zero_grad()


def start() -> Handlers:
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.path.insert(0, settings["peer"])
    peer = Peer(settings)
    return {"ready": peer.ready, "step": peer.step, "train": peer.train}


if __name__ == "__main__":
    serve(start)
