"""Keys of plt."""

from dexml.configkeys.kinds import KeyGroup


class PLTKeys(KeyGroup): ...
