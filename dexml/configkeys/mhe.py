"""Keys of mhe."""

from typing import Annotated, Literal

from pydantic import Field

from dexml.configkeys.kinds import Count, KeyGroup, Natural

KIND_KEYS = {
    **dict.fromkeys(("mhe_heads", "mhe_rank", "mhe_renormalise"), ("product",)),
    "mhe_open": ("cascade", "product"),
    **dict.fromkeys(("mhe_overflow", "mhe_exact", "mhe_init"), ("cascade",)),
    **dict.fromkeys(("mhe_scope", "mhe_sampled"), ("sampling",)),
    **dict.fromkeys(("mhe_dim", "mhe_table"), ("cascade", "sampling")),
}
"""The values of `mhe_kind` that read a key, where not all do."""


class MHEKeys(KeyGroup):
    # Multi-Head Encoding (net mhe)
    mhe_kind: Literal["product", "cascade", "sampling"] = "cascade"
    """One short classifier a digit of the label's code, a group and a label in it, or a softmax over some groups."""
    mhe_lengths: Annotated[str, Field(pattern=r"^(\d+(x\d+)+)?$")] = ""
    """Lengths of the heads, as 172x23; their product is the number of labels or more. Empty: by mhe_groups."""
    mhe_groups: Natural = 0
    """Length of the first of two heads, the second follows. 0: automatic, the cheapest."""
    mhe_heads: Annotated[int, Field(ge=2)] = 2
    """Number of heads of automatic lengths. More are smaller and less accurate."""
    mhe_rank: Count = 1
    """Groups of heads whose products are added. More than 1 pairs digits, for several labels a text."""
    mhe_order: Literal["alphabetical", "cluster", "frequency", "random"] = "alphabetical"
    """Order of labels that is cut into blocks. alphabetical was published; cluster puts similar labels together."""
    mhe_loss: Literal["auto", "softmax", "bce", "joint-softmax", "soft-margin"] = "auto"
    """auto is softmax for sampling and where every point has one label, else bce. The last two are for product."""
    mhe_renormalise: bool = False
    """Leave codes that stand for no label out of the softmax."""
    mhe_open: Count = 75
    """Groups whose labels are compared with a text."""
    mhe_overflow: Literal["append", "replace", "drop"] = "append"
    """Positives of groups that are not opened. replace, as published, writes them over the hardest negatives."""
    mhe_exact: bool = False
    """Predict over all groups, opened as far as need be, instead of the best mhe_open."""
    mhe_init: Literal["random", "label-text"] = "random"
    """Where label vectors and group weights start. label-text is for labels whose texts say something."""
    mhe_scope: Literal["own", "sample", "batch"] = "sample"
    """Groups in the softmax of a text: those of its labels, these and random ones, or those of the whole batch."""
    mhe_sampled: Count = 4
    """Groups in the softmax of a text with mhe_scope sample, its own among them."""
    mhe_dim: Natural = 0
    """Width of label vectors. 0: 400 in a cascade; that of the text vector for sampling."""
    mhe_table: Literal["replicated", "sharded"] = "replicated"
    """Every process holds all label vectors (replicated) or those of some groups. Results are the same."""
