"""What is said of a lane that misses a target_l0 which, as its k, is an upper bound of every sample's active units."""

from __future__ import annotations

from collections.abc import Callable


def bounded(fewer: str) -> Callable[[float, float], tuple[str, str]]:
    """What a record's `missed` is, where k is at most kept of each sample.

    Args:
        fewer: what is true of samples that have fewer, in words.
    """

    def missed(asked: float, reached: float) -> tuple[str, str]:
        whole = round(asked)
        # Of 2.5 no sample has more than 2, and it is the rounding that more steps, or other samples, would not mend.
        if abs(whole - asked) > abs(whole - reached):
            return "k is a whole number there", "batch_topk, which keeps a fraction on average, or a whole target_l0"
        return f"k is an upper bound there, and {fewer}", "batch_topk, which reaches it, or a lower target_l0"

    return missed
