"""AttentionXML (arXiv 1811.01727): label-wise attention down a tree of labels, a network a level.

The first network looks at a text for all nodes of the coarsest level. Each of the others is compared with the children
of the nodes that the one before goes on with. The score of a node is the product of the probabilities on its path.

N tokens of B texts, D width of a token's state, S candidates of a text, C nodes kept of the level above, K places kept.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from dexml.config import Config, ConfigError
from dexml.data.batching import Batch, Ints
from dexml.data.dataset import Split
from dexml.data.files import sha256
from dexml.data.tokens import Tokens
from dexml.evaluation.retrieval import Embedder, Finder, Lists
from dexml.heads.attention import groups
from dexml.heads.attentionhead import AttentionHead, FlatAttention, StateFinder, full_best, layer_sizes
from dexml.heads.attentionnet import SharedNet
from dexml.heads.attentionstart import prior
from dexml.heads.attentionxmltree import LevelSplit, level_of, n_levels, nodes_of, parents_at, run_of_level, tree_of
from dexml.heads.candidates import bce_sum
from dexml.heads.features import Positives, PreparedFeatures
from dexml.heads.group_search import best_of
from dexml.heads.shortlists import Below, Shortlists, kept_nodes, marks, parents_of, random_fill, renumbered
from dexml.heads.tree import LabelTree, TreeError
from dexml.hub.bundle import HEAD, read_labels

TREE, ABOVE = "tree.safetensors", "above"  # of a bundle; the second is the bundle of the level above
GROUP_TOKENS = 1024  # padded, of texts that are compared with their candidates together


class LevelNet(SharedNet):
    """The network of a level. It remembers its tree, so that its weights are never used with another."""

    def __init__(self, cfg: Config, tree: LabelTree, width: int) -> None:
        level = level_of(cfg)
        low, high = tree.levels[level + 1]
        super().__init__(high - low, width, layer_sizes(cfg), sparse=level > 0 and cfg.optim == "lazyadam")
        self.tree = tree

    def get_extra_state(self) -> Tensor:
        return torch.frombuffer(bytearray.fromhex(self.tree.hash), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        if not torch.equal(state.cpu(), self.get_extra_state()):
            raise TreeError("these weights belong to another label tree than the one at hand: train anew")


class FirstLevel(FlatAttention):
    """All nodes of the coarsest level look at every text."""

    def fit(self, split: Split) -> None:
        assert isinstance(split, LevelSplit)
        self.net = LevelNet(self.cfg, split.tree, self.encoder.width)
        self.net.start_rare(prior(split.relevance))

    def write_structure(self, folder: Path) -> None:
        assert isinstance(self.net, LevelNet)
        self.net.tree.save(folder / TREE)

    def read_structure(self, folder: Path) -> None:
        self.net = LevelNet(self.cfg, LabelTree.load(folder / TREE), self.encoder.width)


@dataclass(frozen=True)
class PreparedCandidates(PreparedFeatures):
    cand: Ints
    """[B, S] nodes that the texts of this rank are compared with, -1 for none and for those that a filter names"""
    target: NDArray[np.bool_]
    """[B, S]"""

    @property
    def terms(self) -> int:
        return int(np.count_nonzero(self.cand >= 0))


class NextLevel(AttentionHead):
    """Texts are compared with the children of nodes of the level above; the last level's nodes are the labels."""

    net: LevelNet
    shortlist: Shortlists | None = None
    """of the training points"""

    # --- structure ---

    def fit(self, split: Split) -> None:
        self._make(split.tree if isinstance(split, LevelSplit) else tree_of(self.cfg, split, self.tokens, self.world))
        level = level_of(self.cfg)
        run = run_of_level(self.cfg, level - 1)
        self._open_above(run / "best")
        if isinstance(self.above.head, NextLevel):
            self.above.head.query_tokens, self.above.head.shortlist = self.query_tokens, Shortlists.open(run)
        facts = {name: sha256(self.above_folder / name) for name in ("model.safetensors", HEAD)}
        facts["points"] = self.query_tokens.fingerprint
        shape = len(self.query_tokens), self.beam
        self.shortlist = Shortlists.make(self.world, self.cfg.out_dir, facts, shape, self._predicted)

    def fit_structure(self, embedder: Embedder) -> None:
        """Encoder and MLP go on from the level above, queries begin anew."""
        above = self.above.head
        self.encoder.load_state_dict(above.encoder.state_dict())
        kept = {name: value for name, value in above.net.state_dict().items() if name.startswith(("first.", "mlp."))}
        self.net.load_state_dict(kept, strict=False)
        super().fit_structure(embedder)

    def outputs(self) -> csr_matrix:
        return self.split.relevance[:, np.argsort(self.number)]

    def _make(self, tree: LabelTree) -> None:
        level = level_of(self.cfg)
        self.tree, self.net = tree, LevelNet(self.cfg, tree, self.encoder.width)
        self.below, self.parent = Below.of(tree, level), parents_at(tree, level)
        self.beam = min(self.cfg.beam_width, len(self.below.first))
        low, high = tree.levels[level + 1]
        last = level == n_levels(self.cfg) - 1
        self.number = nodes_of(tree, level) if last else np.arange(high - low)
        """[L] the node of what this level predicts"""
        self.named = torch.from_numpy(np.argsort(self.number))

    def _open_above(self, folder: Path) -> None:
        from dexml.hub.headed import load_headed  # which makes heads by their names, this one too

        if not (folder / HEAD).is_file():
            raise ConfigError(
                f"{folder} holds no network of the level above: train without train_level, which begins there"
            )
        device = str(self.encoder.device)
        _, finder = load_headed(folder, read_labels(folder), device, self.cfg.amp_encode, self.cfg.trust_remote_code)
        assert isinstance(finder, StateFinder)
        assert isinstance(finder.head.net, LevelNet)
        if finder.head.net.tree != self.tree:
            raise TreeError(f"{folder} was trained on another label tree: start over with --resume never")
        self.above, self.above_folder = finder, folder
        for module in (finder.head.encoder, finder.head.net):
            module.to(next(self.encoder.parameters()))

    def _predicted(self, rows: Ints) -> Lists:
        """Nodes of the level above that training points go on with."""
        ids, scores = self.above.mine(self.query_tokens, rows[self.world.span(len(rows))], self.beam)
        ids, scores = (self.world.gather_rows(x, len(rows)) for x in (ids, scores))
        return ids.cpu().numpy(), scores.cpu().numpy()

    # --- training ---

    def prepare(self, batch: Batch) -> PreparedCandidates:
        assert self.shortlist is not None
        ready = super().prepare(batch)
        true = renumbered(self.number, ready.positives)
        kept = kept_nodes(self.shortlist.ids[ready.points].astype(np.int64), parents_of(self.parent, true), self.beam)
        cand = self.below.candidates(kept)
        if self.cfg.pad_candidates == "random":
            cand = random_fill(cand, len(self.parent), self.cfg.seed, batch.epoch, ready.points)
        unknown = renumbered(self.number, Positives.unknown(self.split, ready.points))
        cand = np.where(marks(cand, unknown), -1, cand)
        return PreparedCandidates(**vars(ready), cand=cand, target=marks(cand, true))

    def loss(self, z_BD: Tensor, ready: PreparedFeatures) -> Tensor:
        assert isinstance(ready, PreparedCandidates)
        cand, target = (torch.from_numpy(x).to(z_BD.device) for x in (ready.cand, ready.target))
        total = z_BD[:0].sum()  # a rank without texts takes part, too
        for texts, layout in groups(ready.queries.chunks.sizes, GROUP_TOKENS):
            at = torch.from_numpy(texts).to(z_BD.device)
            real = cand[at] >= 0
            logit = self.net.candidates(layout.take(z_BD), layout.mask.to(z_BD.device), cand[at].clamp(min=0))
            total = total + bce_sum(logit[real], target[at][real])
        return total / self.world.sum_((cand >= 0).sum()).clamp(min=1)

    # --- prediction ---

    def best(self, z_ND: Tensor, k: int, lengths: Ints | None = None) -> tuple[Tensor, Tensor]:
        """As if every node of the level above had probability 1: without the tree."""
        lengths = np.ones(len(z_ND), np.int64) if lengths is None else lengths
        node, scores = full_best(self.net, z_ND, lengths, k)
        return self.named.to(node.device)[node], scores

    def best_below(self, z_ND: Tensor, k: int, lengths: Ints, above: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The k best children of these nodes of the level above, ids [B, C] and probabilities, padded with -1."""
        parent_BC, probability_BC = above
        cand = torch.from_numpy(self.below.candidates(parent_BC.cpu().numpy())).to(z_ND.device)
        score = probability_BC.to(z_ND).repeat_interleave(cand.shape[1] // parent_BC.shape[1], 1)
        for texts, layout in groups(lengths, GROUP_TOKENS):
            at = torch.from_numpy(texts).to(z_ND.device)
            logit = self.net.candidates(layout.take(z_ND), layout.mask.to(z_ND.device), cand[at].clamp(min=0))
            score[at] *= logit.sigmoid()
        score = score.where(cand >= 0, -torch.inf)
        return best_of(self.named.to(cand.device)[cand.clamp(min=0)].where(cand >= 0, -1), score, k)

    def retriever(self, embedder: Embedder) -> Finder:
        return LevelFinder(embedder, self)

    # --- bundles ---

    def write_structure(self, folder: Path) -> None:
        self.tree.save(folder / TREE)
        shutil.copytree(self.above_folder, folder / ABOVE)

    def read_structure(self, folder: Path) -> None:
        self._make(LabelTree.load(folder / TREE))
        self._open_above(folder / ABOVE)


class LevelFinder(StateFinder):
    """Goes down level by level; training points begin where their shortlists end."""

    head: NextLevel

    def mine(self, tokens: Tokens, rows: Ints, k: int) -> tuple[Tensor, Tensor]:
        head, shortlist = self.head, self.head.shortlist
        if shortlist is not None and tokens is head.query_tokens:
            above = torch.from_numpy(shortlist.ids[rows]).long(), torch.from_numpy(shortlist.scores[rows])
        else:
            above = head.above.mine(tokens, rows, head.beam)

        def look(z_ND: Tensor, part: Ints, lengths: Ints) -> tuple[Tensor, Tensor]:
            return head.best_below(z_ND, k, lengths, (above[0][part], above[1][part]))

        return self.through(tokens, rows, k, look)
