"""Keys of the optimiser beside those of the core, and of weight averaging."""

from typing import Literal

from dexml.configkeys.kinds import KeyGroup, Natural, Positive


class AveragingKeys(KeyGroup):
    # Schedule and averaging of weights
    lr_schedule: Literal["linear", "constant"] = "linear"
    """After warmup the learning rate falls linearly to 0, or stays. constant goes with averaging."""
    adam_eps: Positive = 1e-8
    """Epsilon of Adam, added to the root of its second moment. Published text classifiers take 1e-6."""
    swa_every: Natural = 0
    """Average the weights every so many steps of an epoch; evaluation and export use the average. 0 never does."""
    swa_start: Natural = 1
    """Epochs before averaging begins, with the weights as they are then."""
