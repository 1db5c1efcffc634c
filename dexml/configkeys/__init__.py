"""The keys of the configuration: name, type, bounds, default and documentation of each, checked one by one.

`core` holds those of every run, the other modules those of single kinds of `net`. `--help` and
configs/dual-encoder.yaml show the same texts.
"""

from dexml.configkeys.attentionxml import AttentionXMLKeys, LabelwiseKeys
from dexml.configkeys.averaging import AveragingKeys
from dexml.configkeys.bank import BankKeys
from dexml.configkeys.core import CoreKeys
from dexml.configkeys.features import FeatureKeys
from dexml.configkeys.kinds import KeyGroup
from dexml.configkeys.lightxml import LightXMLKeys
from dexml.configkeys.mhe import MHEKeys
from dexml.configkeys.plt import PLTKeys
from dexml.configkeys.words import WordKeys

FAMILIES: dict[type[KeyGroup], tuple[str, ...]] = {
    BankKeys: ("dist-de-all",),
    FeatureKeys: ("lightxml", "mhe", "plt"),
    WordKeys: ("attentionxml", "bilstm", "lightxml", "mhe", "plt"),
    LightXMLKeys: ("lightxml",),
    MHEKeys: ("mhe",),
    LabelwiseKeys: ("attentionxml", "bilstm", "plt"),
    AttentionXMLKeys: ("attentionxml",),
    PLTKeys: ("plt",),
}
"""The kinds of `net` that read the keys of a group; to all others they would mean nothing."""


class Keys(
    PLTKeys,
    AttentionXMLKeys,
    LabelwiseKeys,
    MHEKeys,
    LightXMLKeys,
    WordKeys,
    FeatureKeys,
    AveragingKeys,
    BankKeys,
    CoreKeys,
):
    """Every key; `Config` adds the checks between keys."""


FIELDS = Keys.model_fields
