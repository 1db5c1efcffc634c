"""How many texts to encode at a time: found while working, no text is encoded for the measurement alone."""

from __future__ import annotations

FIRST, LARGEST = 32, 8192
ENOUGH = 1.05  # a doubling that does not bring so much more speed is the last
CHANCES = 2  # to show it: another program may have been in the way


class BatchSize:
    """Doubles as long as that makes encoding faster, and halves for good when memory runs out.

    Ask for `size` before a part of the work, and tell what came of it.
    """

    def __init__(self, size: int | None = None) -> None:
        """With a given size there is nothing to find; it still halves when memory runs out."""
        self.size = size or FIRST
        self.settled = size is not None
        self._best = 0.0
        self._chances = CHANCES

    def done(self, speed: float) -> None:
        """`speed` is work a second, of anything."""
        if self.settled:
            return
        if speed >= ENOUGH * self._best:
            self._best, self._chances, self.size = speed, CHANCES, 2 * self.size
            self.settled = self.size >= LARGEST
            return
        self._chances -= 1
        if not self._chances:
            self.settled, self.size = True, self.size // 2

    def out_of_memory(self) -> bool:
        """Whether a smaller size is left to try."""
        self.settled, self.size = True, self.size // 2
        return self.size > 0
