"""Keys of heads on the vectors of several layers: lightxml, mhe, plt."""

from typing import Annotated

from pydantic import Field

from dexml.configkeys.kinds import Count, KeyGroup, Share


class FeatureKeys(KeyGroup):
    # Text vector of lightxml, mhe and plt
    doc_layers: Count = 5
    """Last layers whose pooled vectors are joined into the text vector. More see more and make the head wider."""
    doc_dropout: Share = 0.5
    """Dropout on the text vector in training."""
    dropout_off_after_step: Annotated[float | None, Field(ge=0)] = None
    """Last step of every epoch with dropout of any kind, or below 1 the share of its steps. null drops out in all."""
