"""Keys of lightxml."""

from dexml.configkeys.kinds import KeyGroup


class LightXMLKeys(KeyGroup): ...
