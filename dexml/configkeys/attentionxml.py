"""Keys of attentionxml and bilstm."""

from dexml.configkeys.kinds import KeyGroup


class AttentionXMLKeys(KeyGroup): ...
