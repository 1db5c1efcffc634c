"""Keys of heads on the vectors of several layers (lightxml, mhe)."""

from dexml.configkeys.kinds import KeyGroup


class FeatureKeys(KeyGroup): ...
