"""Where label queries and biases start, against a naive reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from dexml.distributed import World
from dexml.encoders.bilstm import BiLSTM, BiLSTMConfig
from dexml.encoders.states import StateEncoder
from dexml.evaluation.retrieval import Embedder
from dexml.heads.attentionnet import AttentionNet, LabelwiseNet, SharedNet
from dexml.heads.attentionstart import TextStart, prior
from tests.helpers.tokens import ListTokens

TEXTS = [[5, 6, 7], [8], [5, 9, 10, 11, 12], [6, 13], [14, 15, 16, 17], [18, 19]]
RELEVANCE = csr_matrix(np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1]]))


@pytest.fixture
def encoder() -> StateEncoder:
    torch.manual_seed(3)
    return StateEncoder(BiLSTM(BiLSTMConfig(20, 6, 8)).double()).eval()


def start(encoder: StateEncoder, max_rows: int) -> TextStart:
    begun = TextStart(Embedder(encoder, World(), max_rows, 1 << 20), 4)
    begun.read(ListTokens(TEXTS), RELEVANCE)
    return begun


def naive(encoder: StateEncoder) -> dict[int, Tensor]:
    """Of the outputs that have texts."""
    with torch.no_grad():
        states = {i: encoder(torch.tensor([text]), torch.tensor([len(text)])) for i, text in enumerate(TEXTS) if i != 2}
    of_all = torch.stack([state.mean(0) for state in states.values()]).mean(0)
    units = {}
    for output in (0, 1, 3):
        mean = torch.stack([states[i].mean(0) - of_all for i in states if RELEVANCE[i, output]]).sum(0)
        units[output] = mean / mean.norm()
    scores = [(state - state.mean(0)) @ unit for state in states.values() for unit in units.values()]
    spread = torch.cat(scores).square().mean().sqrt()
    return {output: unit / (2 * spread) for output, unit in units.items()}


@pytest.mark.parametrize("max_rows", [1, 2, 100])
def test_queries_are_the_mean_states_of_their_texts(encoder: StateEncoder, max_rows: int) -> None:
    found = start(encoder, max_rows).queries(torch.zeros(4, 8))
    for output, expected in naive(encoder).items():
        torch.testing.assert_close(found[output], expected, rtol=0, atol=1e-9)


def test_an_output_without_texts_starts_where_it_is(encoder: StateEncoder) -> None:
    assert start(encoder, 10).queries(torch.full((4, 8), 0.25))[2].tolist() == [0.25] * 8


def test_a_process_without_texts_adds_nothing(encoder: StateEncoder) -> None:
    begun = TextStart(Embedder(encoder, World(), 10, 1 << 20), 4)
    begun.read(ListTokens(TEXTS), csr_matrix((len(TEXTS), 4)))
    assert float(begun.tokens) == begun.texts == 0
    assert begun.queries(torch.full((4, 8), 0.5)).tolist() == [[0.5] * 8] * 4


def test_texts_that_are_all_alike_leave_queries_as_they_are(encoder: StateEncoder) -> None:
    begun = TextStart(Embedder(encoder, World(), 10, 1 << 20), 2)
    begun.read(ListTokens([[5, 6], [5, 6], [5, 6]]), csr_matrix(np.array([[1, 0], [0, 1], [1, 1]])))
    found = begun.queries(torch.full((2, 8), 0.5))
    assert bool(found.isfinite().all())


def test_the_prior_counts_points_that_have_a_label() -> None:
    assert prior(RELEVANCE) == pytest.approx(math.log(9 / 11))
    assert prior(csr_matrix((3, 5))) == pytest.approx(math.log(1 / 4))
    assert math.isfinite(prior(csr_matrix(np.ones((3, 1)))))


@pytest.mark.parametrize("net", [SharedNet(5, 4, [3]), SharedNet(5, 4, [3, 2]), LabelwiseNet(5, 4)])
def test_logits_start_at_the_prior(net: AttentionNet) -> None:
    net.start_rare(-3.0)
    states, mask = torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    for layer in (net.first, *net.mlp)[:-1] if isinstance(net, SharedNet) else ():
        torch.nn.init.zeros_(layer.bias)
    logits = net.logits(states, net.values(states), mask, *net.tables)
    torch.testing.assert_close(logits, torch.full((2, 5), -3.0))
