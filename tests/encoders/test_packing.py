"""Texts laid end to end give the vectors and gradients of padded texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dexml.encoders.packing import Packing
from dexml.encoders.pretrained import load_backbone
from dexml.encoders.text import Pooler, TextEncoder
from tests.encoders.test_text import IDS, KEYS, KINDS, LENGTHS, encoder
from tests.helpers.models import make_model

PACKS = {"bert", "distilbert", "roberta"}
REAL = torch.arange(IDS.shape[1]) < LENGTHS[:, None]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: make_model(root / kind, kind) for kind in KINDS}


def gradients(model: TextEncoder, out: Tensor) -> dict[str, Tensor]:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    found = torch.autograd.grad((out * weight).sum(), list(named.values()), allow_unused=True)
    return {name: g.to_dense() if g.is_sparse else g for name, g in zip(named, found, strict=True) if g is not None}


def test_a_packing_tells_runs_places_and_texts() -> None:
    packing = Packing(np.array([3, 3, 1, 2, 2, 3]))
    assert packing.runs == [(2, 3), (1, 1), (2, 2), (1, 3)]
    assert packing.run_sizes == [6, 1, 4, 3]
    assert packing.starts.tolist() == [0, 3, 6, 7, 9, 11]
    assert packing.positions.tolist() == [0, 1, 2, 0, 1, 2, 0, 0, 1, 0, 1, 0, 1, 2]
    assert packing.text_of.tolist() == [0, 0, 0, 1, 1, 1, 2, 3, 3, 4, 4, 5, 5, 5]
    x = torch.randn(14, 2)
    means = torch.stack([x[packing.text_of == text].mean(0) for text in range(6)])
    torch.testing.assert_close(packing.mean(x), means)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pooler", ["cls", "mean", "last"])
@pytest.mark.parametrize("kind", sorted(PACKS))
def test_packed_equals_padded_in_value_and_gradient(
    folders: dict[str, Path], kind: str, pooler: Pooler, training: bool
) -> None:
    backbone = load_backbone(str(folders[kind]), dropout=0.3)
    model = TextEncoder(backbone, pooler, bottleneck=8, dropout=0.2).double().train(training)
    padded = model(IDS, LENGTHS, KEYS)
    packed = model.packed(IDS[REAL], Packing(LENGTHS.numpy()), KEYS)
    sparse = model.packed(IDS[REAL], Packing(LENGTHS.numpy()), KEYS, sparse_grad=True)
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-12)
    expected = gradients(model, padded)
    for found in (gradients(model, packed), gradients(model, sparse)):
        assert found.keys() == expected.keys()
        for name, grad in expected.items():
            torch.testing.assert_close(found[name], grad, rtol=1e-9, atol=1e-12, msg=name)


def test_dropout_is_on_in_that_comparison(folders: dict[str, Path]) -> None:
    model = encoder(folders["bert"], 0.3).double()
    packing = Packing(LENGTHS.numpy())
    still, dropped = (model.train(on).packed(IDS[REAL], packing, KEYS) for on in (False, True))
    assert (still - dropped).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_models_that_cannot_be_packed_are_found_out(folders: dict[str, Path], kind: str) -> None:
    model = encoder(folders[kind], 0.1)
    before, mode = torch.get_rng_state(), model.training
    assert model.packs == (kind in PACKS)
    assert not model.draws
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training == mode


def test_the_own_pooling_layer_and_compiled_models_are_padded(folders: dict[str, Path]) -> None:
    assert not encoder(folders["bert"], pooler="pooler").packs
    compiled = encoder(folders["bert"])
    compiled.tf.compile(dynamic=True)
    assert not compiled.packs


@pytest.mark.parametrize("training", [False, True])
def test_half_precision_packed_is_near_single(folders: dict[str, Path], training: bool) -> None:
    packing = Packing(LENGTHS.numpy())
    whole, half = (
        encoder(folders["bert"], 0.1, precision=precision).train(training).packed(IDS[REAL], packing, KEYS)
        for precision in ("fp32", "bf16")
    )
    assert half.dtype == torch.float32
    assert 0 < (whole - half).abs().max() < 0.02


def test_layers_that_share_an_input_share_its_cast(folders: dict[str, Path]) -> None:
    """Query, key and value of a layer read one bfloat16 copy: its gradient is cast back once."""
    model = encoder(folders["bert"], 0.0, precision="bf16").train()
    out = model.packed(IDS[REAL], Packing(LENGTHS.numpy()), KEYS)
    seen, casts, todo = set(), 0, [out.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = any(type(child).__name__ == "AccumulateGrad" for child, _ in node.next_functions if child)
        casts += type(node).__name__ == "ToCopyBackward0" and not leaf
        todo += [child for child, _ in node.next_functions]
    layers = 2
    assert casts <= 2 * layers + 1  # attention and feed-forward of each layer, and one for pooling


def test_gradient_checkpointing_of_a_packed_chunk_gives_the_same_gradient(folders: dict[str, Path]) -> None:
    packing = Packing(LENGTHS.numpy())
    plain = encoder(folders["bert"], 0.3).double().train()
    saving = encoder(folders["bert"], 0.3).double().train()
    saving.checkpoint_gradients()
    expected = gradients(plain, plain.packed(IDS[REAL], packing, KEYS))
    for name, grad in gradients(saving, saving.packed(IDS[REAL], packing, KEYS)).items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-10, atol=1e-13, msg=name)
