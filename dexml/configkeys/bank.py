"""Keys of the label bank: an embedding of every label, few of them made anew in a step (`label_side: bank`)."""

from typing import Annotated, Literal

from pydantic import Field

from dexml.configkeys.kinds import KeyGroup


class BankKeys(KeyGroup):
    # Label bank
    bank_budget: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of all labels that a step encodes, the batch's positives among them. 1 is the same as label_side all."""
    bank_mined: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the budget left by the positives for the labels that the loss pulls at most. The rest goes round all."""
    bank_grad: Literal["weighted", "delayed", "drop"] = "weighted"
    """What becomes of gradients of labels not encoded: those going round stand for them (weighted), or they wait until
    their turn (delayed, one more number a weight), or are lost (drop)."""
    bank_correction: Literal["none", "linear", "kernel"] = "kernel"
    """Moves the rows not encoded as those that were have moved: by one linear map, or by a kernel on top of it."""
    bank_dtype: Literal["fp32", "bf16"] = "fp32"
    """Number format of the bank. bf16 halves its memory and rounds scores to two or three digits."""
