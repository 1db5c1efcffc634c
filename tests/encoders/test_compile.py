from pathlib import Path

import pytest
import torch
from torch import Tensor

from dexml import load_config
from dexml.config import ConfigError
from dexml.encoders.pretrained import build_encoder, load_backbone
from dexml.encoders.text import TextEncoder
from tests.encoders.test_text import IDS, KEYS, LENGTHS
from tests.helpers.models import make_model, write_config

SHAPES = [(6, 9), (4, 5), (5, 7)]


def steps(model: TextEncoder) -> list[Tensor]:
    """Embeddings and a gradient at several shapes, one after another."""
    found = []
    for rows, width in SHAPES:
        model.zero_grad()
        out = model(IDS[:rows, :width].contiguous(), LENGTHS[:rows].clamp(max=width), KEYS[:rows])
        (out * torch.linspace(-1, 1, out.shape[1])).sum().backward()
        weight = next(value for value in model.parameters() if value.grad is not None)
        found += [out.detach(), weight.grad.clone()]  # type: ignore[union-attr]
    return found


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_a_traced_encoder_equals_the_plain_one(tmp_path: Path, training: bool) -> None:
    folder = str(make_model(tmp_path, layers=1))
    expected = steps(TextEncoder(load_backbone(folder, dropout=0.2), dropout=0.1).train(training))
    model = TextEncoder(load_backbone(folder, dropout=0.2), dropout=0.1).train(training)
    torch._dynamo.reset()
    model.tf.compile(dynamic=True, backend="eager")  # without the later stages of the compiler, which take minutes
    assert_same(steps(model), expected)


def test_compile_and_gradient_checkpointing_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="compile and grad_checkpointing cannot be used together"):
        load_config([write_config(tmp_path, compile=True, grad_checkpointing=True)])


@pytest.mark.heavy
def test_a_compiled_encoder_equals_the_plain_one(tmp_path: Path) -> None:
    config = write_config(tmp_path, tf_dropout=0.2, dropout=0.1)
    torch._dynamo.reset()
    for training in (False, True):
        plain, compiled = (
            build_encoder(load_config([config], overrides={"compile": on}), torch.device("cpu")).train(training)
            for on in (False, True)
        )
        assert_same(steps(compiled), steps(plain))
