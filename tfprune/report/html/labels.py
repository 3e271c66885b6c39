"""Where to write names beside points so that none covers another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Near before far; right of the point before elsewhere, where a reader looks first.
_DISTANCES = (6.0, 11.0, 18.0, 27.0, 38.0, 52.0)
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


@dataclass(frozen=True)
class Box:
    """A rectangle, its sides parallel to the axes."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether both share an area."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def holds(self, other: Box) -> bool:
        """Whether the other lies wholly inside."""
        return (
            self.left <= other.left
            and self.bottom <= other.bottom
            and other.right <= self.right
            and other.top <= self.top
        )


def _around(at: tuple[float, float], size: tuple[float, float]) -> Iterator[Box]:
    (x, y), (width, height) = at, size
    for distance in _DISTANCES:
        for right, up in _SIDES:
            # Diagonal places are as far away as the straight ones.
            reach = distance if 0 in (right, up) else distance * 0.7
            left = x + right * reach + (right - 1) / 2 * width
            bottom = y + up * reach + (up - 1) / 2 * height
            yield Box(left, bottom, left + width, bottom + height)


def place(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    bounds: Box,
    *,
    taken: Sequence[Box] = (),
    disliked: Sequence[Box] = (),
) -> list[Box | None]:
    """Finds a place for the name of every point, the first ones first.

    Args:
        points: what is named.
        sizes: width and height of each name.
        bounds: names stay inside.
        taken: what no name may cover.
        disliked: what a name covers only where there is no other place.

    Returns:
        A box for each name, or None where there is no place for it.
    """
    placed: list[Box | None] = []
    for point, size in zip(points, sizes, strict=True):
        full = [*taken, *(box for box in placed if box is not None)]
        free = [
            box
            for box in _around(point, size)
            if bounds.holds(box) and not any(box.meets(other) for other in full)
        ]
        liked = [box for box in free if not any(box.meets(other) for other in disliked)]
        placed.append(next(iter(liked or free), None))
    return placed
