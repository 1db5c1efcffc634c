"""Keys of heads on the vectors of several layers: lightxml, mhe, plt."""

from dexml.configkeys.kinds import Count, KeyGroup, Share


class FeatureKeys(KeyGroup):
    # Text vector of lightxml, mhe and plt
    doc_layers: Count = 5
    """Last layers whose pooled vectors are joined into the text vector. More see more and make the head wider."""
    doc_dropout: Share = 0.5
    """Dropout on the text vector in training."""
