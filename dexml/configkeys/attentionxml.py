"""Keys of label-wise attention, and of attentionxml alone."""

from typing import Annotated, Literal

from pydantic import Field

from dexml.configkeys.kinds import Count, KeyGroup

SIZES = r"^([1-9][0-9]*(,[1-9][0-9]*)*)?$"


class LabelwiseKeys(KeyGroup):
    # Label-wise attention of bilstm, attentionxml and plt with plt_scorer labelwise
    attention_output: Literal["shared", "lwan"] = "shared"
    """What turns the mean that a label sees into its score: an MLP that labels share, or weights of its own (lwan)."""
    linear_size: Annotated[str, Field(pattern=SIZES)] = "256"
    """Widths of the layers of the shared MLP, comma separated."""
    query_init: Literal["random", "texts"] = "random"
    """Where label queries start: at random as published, or at the mean states of their texts, which learns sooner."""


class AttentionXMLKeys(KeyGroup):
    # Levels of attentionxml
    cluster_size: Count = 8
    """Most labels of a cluster in the two-level tree."""
    tree_levels: Annotated[str, Field(pattern=SIZES)] = ""
    """Deeper tree: the depths of a binary tree that are kept above the labels, such as 11,14,17. Empty:
    two levels by cluster_size."""
    beam_width: Count = 64
    """Clusters of a level that a text goes on with. More find more and cost more."""
    pad_candidates: Literal["mask", "random"] = "mask"
    """What fills up lists of candidates in training: nothing, or random labels as in the published code."""
    first_swa_start: Annotated[int | None, Field(ge=0)] = None
    """swa_start of the first level, which learns from nothing and takes longer. null: that of all levels."""
    train_level: Annotated[int | None, Field(ge=0)] = None
    """Level of the tree that this run trains, 0 the first. null trains all, each in a folder of its own, one after the
    other."""
