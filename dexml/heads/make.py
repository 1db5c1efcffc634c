"""The head that a config names."""

from __future__ import annotations

from dexml.config import Config
from dexml.distributed import World
from dexml.encoders.text import TextEncoder
from dexml.heads.attentionhead import FlatAttention
from dexml.heads.attentionxml import FirstLevel, NextLevel
from dexml.heads.bank import BankEncoder
from dexml.heads.base import Head, OpenTokens
from dexml.heads.classifier import Classifier
from dexml.heads.dual import DualEncoder
from dexml.heads.joint import Joint
from dexml.heads.lightxml import GroupedLightXML
from dexml.heads.lightxml_plain import PlainLightXML
from dexml.heads.mhe import MultiHead
from dexml.heads.mhe_cascade import Cascade
from dexml.heads.mhe_product import Product
from dexml.heads.mhe_rank import RankedProduct
from dexml.heads.mhe_sampling import Sampling
from dexml.heads.plt import PLT
from dexml.heads.plt_labelwise import LabelwisePLT

MHE: dict[str, type[MultiHead]] = {"product": Product, "cascade": Cascade, "sampling": Sampling}


def multi_head(cfg: Config) -> type[MultiHead]:
    return RankedProduct if cfg.mhe_rank > 1 else MHE[cfg.mhe_kind]


def make_head(cfg: Config, encoder: TextEncoder, n_labels: int, tokens: OpenTokens, world: World) -> Head:
    """On top of `encoder`, ready to predict; `Head.learn_from` makes it ready to be trained."""
    if cfg.clf_joint:
        return Joint(cfg, encoder, n_labels, tokens, world)
    if cfg.net == "dist-clf-net":
        return Classifier(cfg, encoder, n_labels, tokens, world)
    if cfg.net == "lightxml":
        kind = GroupedLightXML if cfg.lxml_mode == "grouped" else PlainLightXML
        return kind(cfg, encoder, n_labels, tokens, world)
    if cfg.net == "plt":
        scored = LabelwisePLT if cfg.plt_scorer == "labelwise" else PLT
        return scored(cfg, encoder, n_labels, tokens, world)
    if cfg.net == "mhe":
        return multi_head(cfg)(cfg, encoder, n_labels, tokens, world)
    if cfg.net == "bilstm":
        return FlatAttention(cfg, encoder, n_labels, tokens, world)
    if cfg.net == "attentionxml":
        level = FirstLevel if cfg.train_level == 0 else NextLevel
        return level(cfg, encoder, n_labels, tokens, world)
    if cfg.resolved_label_side == "bank":
        return BankEncoder(cfg, encoder, n_labels, tokens, world)
    return DualEncoder(cfg, encoder, n_labels, tokens, world)
