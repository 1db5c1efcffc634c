"""Keys of lightxml."""

from typing import Annotated, Literal

from pydantic import Field

from dexml.configkeys.kinds import Count, KeyGroup, Natural, NotNegative

GROUPED = (
    *("lxml_cluster_size", "lxml_cluster_features", "lxml_tree", "lxml_topb", "lxml_dim", "lxml_overflow"),
    *("lxml_group_weight", "lxml_encoder_grad", "lxml_random_clusters", "lxml_random_labels", "lxml_exact"),
)
"""Keys that only the grouped mode reads."""


class LightXMLKeys(KeyGroup):
    # LightXML (net lightxml)
    lxml_mode: Literal["grouped", "plain"] = "grouped"
    """Clusters of labels first and then the labels of some (grouped), or every label at once (plain). plain is for up
    to some 50,000 labels."""
    lxml_cluster_size: Count = 100
    """Most labels of a cluster. Smaller clusters are more of them, and sharper candidates."""
    lxml_cluster_features: Literal["pifa", "pifa+cooc", "text"] = "pifa"
    """What labels are clustered by: words of their training points, the labels beside them too, or their own words."""
    lxml_tree: Annotated[str, Field(pattern=r"^$|\.safetensors$")] = ""
    """File of a saved label tree whose clusters are used. Empty builds one, anew for every seed."""
    lxml_topb: Count = 75
    """Clusters whose labels are compared with a text."""
    lxml_dim: Count = 400
    """Width of label vectors."""
    lxml_overflow: Literal["append", "replace", "drop"] = "append"
    """Positives of clusters that are not opened. replace, as published, writes them over the hardest negatives."""
    lxml_table: Literal["replicated", "sharded"] = "replicated"
    """Every process holds all label vectors, or those of some clusters. sharded sends less; results are the same."""
    lxml_prior: bool = False
    """Start the biases of clusters (plain: of labels) at how often they occur. Good where steps are few and small."""
    lxml_group_weight: NotNegative = 1.0
    """Weight of the loss over clusters beside that over labels. Raise it when true clusters are missed."""
    lxml_encoder_grad: Literal["both", "group_only", "label_only"] = "both"
    """Loss that reaches the encoder. both is right and what was published; the others are for comparison."""
    lxml_se: Literal["none", "gate", "affine"] = "none"
    """Weigh the layers of the text vector by what they hold: gate begins at equal weights, affine is the published
    fork's."""
    lxml_tokens: Literal["none", "both", "ranker"] = "none"
    """Add means of parts of the text to its vector, for clusters and labels (both) or for labels alone (ranker)."""
    lxml_random_clusters: NotNegative = 0.0
    """Random clusters among the candidates of a text in training; below 1 a share of all clusters."""
    lxml_random_labels: Natural = 0
    """Random labels among the candidates of a text in training."""
    lxml_exact: bool = False
    """Predict over all clusters, opened as far as need be, instead of the best lxml_topb."""
