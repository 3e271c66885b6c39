"""How far an accuracy can be trusted that was counted on so many test images."""

from __future__ import annotations

import math

# The normal distribution holds 95% within as many standard deviations.
_Z95 = 1.959964


def standard_error(share: float, images: int) -> float:
    """The binomial standard error of a share.

    Args:
        share: of the images that were right, 0 to 1.
        images: how many were looked at.
    """
    return math.sqrt(share * (1 - share) / images)


def interval(share: float, images: int) -> tuple[float, float]:
    """The 95% interval of a share after Wilson (1927), which holds near 0 and 1 too.

    Args:
        share: of the images that were right, 0 to 1.
        images: how many were looked at.

    Returns:
        Its lower and its upper end, within 0 and 1.
    """
    squared = _Z95**2 / images
    middle = (share + squared / 2) / (1 + squared)
    half = _Z95 * math.sqrt(share * (1 - share) / images + squared / (4 * images)) / (1 + squared)
    return max(0.0, middle - half), min(1.0, middle + half)
