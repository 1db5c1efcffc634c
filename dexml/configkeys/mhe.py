"""Keys of mhe."""

from dexml.configkeys.kinds import KeyGroup


class MHEKeys(KeyGroup): ...
