"""Words that texts and figures share: how many corners and points there are."""

from collections.abc import Collection, Sequence

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


def number(count: int) -> str:
    """Return a number as a word up to eight, the corners of a cube."""
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def listed(words: Sequence[str], before_last: str) -> str:
    """Return `a`, or `a, b and c`."""
    return f" {before_last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def numbers(counts: Collection[int]) -> str:
    """Return `four`, or `two, three or four`."""
    return listed([number(count) for count in sorted(set(counts))], "or")


def equal_points(counts: Collection[int]) -> str:
    """Return what ensembles of as many points as corners have, `four points` if all surfaces do."""
    return f"{numbers(counts)} points" if len(set(counts)) == 1 else "as many points"


def equal_corners(counts: Collection[int]) -> str:
    """Return `the four corners`, or `the corners` of surfaces that have different numbers."""
    return f"the {numbers(counts)} corners" if len(set(counts)) == 1 else "the corners"
