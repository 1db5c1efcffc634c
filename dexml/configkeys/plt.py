"""Keys of plt."""

from typing import Annotated, Literal

from pydantic import Field

from dexml.configkeys.kinds import Count, KeyGroup, Natural, Share


class PLTKeys(KeyGroup):
    # Probabilistic label trees (net plt)
    plt_tree: Annotated[str, Field(pattern=r"^(kmeans|huffman|random)$|\.safetensors$")] = "kmeans"
    """The tree: kmeans (like labels together), huffman (frequent ones near the root), random, or the file of one."""
    plt_arity: Annotated[int, Field(ge=2)] = 16
    """Children of an inner node. Few make a deep tree with less to compute and more to go wrong on the way."""
    plt_max_leaves: Count = 100
    """Labels below which a node is not split by kmeans and random. Its labels are its children."""
    plt_scorer: Literal["linear", "labelwise"] = "linear"
    """What scores a node: weights on the text's vector, or label-wise attention to its words and an MLP (labelwise)."""
    plt_loss: Literal["per_doc", "per_term"] = "per_doc"
    """Mean of node losses over texts, whose sums they are (per_doc), or over all nodes alike (per_term)."""
    plt_table: Literal["replicated", "sharded"] = "replicated"
    """Node weights on every process, or a range on each where they are too large for one."""
    plt_beam: Natural = 10
    """Inner nodes of each depth that a search goes on from. 0 finds the best labels for certain, in more time."""
    plt_threshold: Share = 0.0
    """Labels less probable than this are not predicted."""
    plt_weights: Literal["none", "propensity"] = "none"
    """Rank labels by probability, or by that times inverse propensity, which is best for PSP@k."""
