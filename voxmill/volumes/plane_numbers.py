"""The numbers in the names of a folder's files, and whether they count the planes of a stack."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

# A hyphen after a digit is no sign: those of 2024-05-06. One after _ or = always is.
_PLAIN, _SIGNED = r"(?:(?<=[_=(,])-)?", r"(?<![0-9])[-+]?"
# In this order: the plainest reading of a name that gives one stack is right. `brain_1.10` is
# plane 10 beside `brain_1.9`, though it could be the position 1.1.
READINGS = tuple(
    re.compile(sign + number)
    for number in (r"[0-9]+", r"[0-9]+(?:[.,][0-9]+)?")
    for sign in (_PLAIN, _SIGNED)
)


def _called(*words: str) -> re.Pattern[str]:
    """What the text before a number ends with where the number is called one of the words."""
    small, large = "|".join(words), "|".join(word.capitalize() for word in words)
    return re.compile(rf"(?:(?:^|[^A-Za-z])(?i:{small})|(?<=[a-z])(?:{large}))[\s_=.-]*$")


CHANNEL = _called("c", "ch", "chan", "channel", "w", "wave", "wavelength", "filter", "laser")
DEPTH = _called("z", "zpos", "plane", "slice", "section", "depth")
OTHER = _called(
    *("t", "time", "timepoint", "tp", "tile", "pos", "position", "p", "m", "mosaic", "s", "scene"),
    *("x", "y", "row", "col", "r", "site", "field", "f", "view", "v", "angle", "a", "b", "stack"),
)


@dataclass(frozen=True)
class Number:
    """One number in the names of files.

    Parameters
    ----------
    before : str
        The text before it, in the first name.
    values : tuple of Decimal
        Its value in each name.
    texts : tuple of str
        Its spelling in each name.
    """

    before: str
    values: tuple[Decimal, ...]
    texts: tuple[str, ...]

    @property
    def varies(self) -> bool:
        """Whether it differs among the names."""
        return len(set(self.values)) > 1

    @property
    def distinct(self) -> bool:
        """Whether no two names have the same."""
        return len(set(self.values)) == len(self.values)

    @property
    def order(self) -> list[int]:
        """Indices of the names in rising order of the number."""
        return sorted(range(len(self.values)), key=lambda i: self.values[i])

    @property
    def spelled(self) -> str:
        """The values as the names spell them, with the word before, for messages."""
        word = re.search(r"[A-Za-z]*(?=[\s_=.-]*$)", self.before)
        known = dict(zip(self.values, self.texts, strict=True))
        texts = [f"{word.group(0) if word else ''}{known[value]}" for value in sorted(known)]
        return ", ".join(texts if len(texts) <= 4 else [*texts[:3], "...", texts[-1]])

    def pick(self, kept: Sequence[int]) -> "Number":
        """The same number of some of the names."""
        return Number(
            self.before, tuple(self.values[i] for i in kept), tuple(self.texts[i] for i in kept)
        )


def template(name: str, reading: re.Pattern[str] = READINGS[-1]) -> str:
    """A file's name without its ending and its numbers."""
    return reading.sub("#", name.lower().rpartition(".")[0])


def numbers_of(names: Sequence[str]) -> list[Number] | None:
    """The numbers in names of one pattern; None where the names have several patterns.

    Digits with signs and points can be read in several ways. The plainest one in which the names
    are those of a stack is taken, else the plainest one in which the fewest numbers vary.
    """
    best: list[Number] | None = None
    for reading in READINGS:
        if len({template(name, reading) for name in names}) > 1:
            continue
        stems = [name.rpartition(".")[0] for name in names]
        texts = list(zip(*(reading.findall(stem) for stem in stems), strict=True))
        if any(re.fullmatch(r"-0+", text) for column in texts for text in column):
            continue  # the sign of -0.5, which no whole number holds
        before = [stems[0][: match.start()] for match in reading.finditer(stems[0])]
        numbers = [
            Number(text, tuple(Decimal(t.replace(",", ".")) for t in column), column)
            for text, column in zip(before, texts, strict=True)
        ]
        if is_stack(numbers) and not _splits_decimals(numbers):
            return numbers
        if best is None or sum(n.varies for n in numbers) < sum(n.varies for n in best):
            best = numbers
    return best


def _splits_decimals(numbers: Sequence[Number]) -> bool:
    """Whether a decimal number seems to be read as two: -1.5 and 2.25, not 1.9 and 1.10."""
    for number, following in itertools.pairwise(numbers):
        joint = following.before[len(number.before) + len(number.texts[0]) :]
        signed = any(text.startswith("-") for text in number.texts)
        if joint in (".", ",") and following.varies and (number.varies or signed):
            return True
    return False


def is_stack(numbers: Sequence[Number]) -> bool:
    """Whether one of the numbers counts the planes of a stack in even steps."""
    return any(n.varies and n.distinct and counts_planes(n, numbers) for n in numbers)


def counts_planes(z: Number, numbers: Sequence[Number]) -> bool:
    """Whether a distinct number has even steps, and all others are constant or rise with it."""
    return goes_along(z, numbers) and uneven_step([z.values[i] for i in z.order]) is None


def goes_along(z: Number, numbers: Sequence[Number]) -> bool:
    """Whether the numbers beside z are constant or those of a clock: they rise (or fall) with z.

    A clock may show the same for a few planes. A few values for many planes are channels,
    positions or time points whose planes are numbered one after the other; and so are two numbers
    each of whose values come together.
    """
    others = [n for n in numbers if n is not z and n.varies]
    if not others:
        return True
    stamps = [tuple(n.values[i] for n in others) for i in z.order]
    for first, second in itertools.combinations(zip(*stamps, strict=True), 2):
        sides = len(set(first)), len(set(second))
        if min(sides) > 1 and len(set(zip(first, second, strict=True))) == sides[0] * sides[1]:
            return False
    rises = all(a <= b for a, b in itertools.pairwise(stamps))
    falls = all(a >= b for a, b in itertools.pairwise(stamps))
    return (rises or falls) and 2 * len(set(stamps)) > len(stamps)


def uneven_step(positions: Sequence[Decimal]) -> int | None:
    """Index of the step that differs most from the usual one; None if the steps are even.

    Steps of rounded positions may differ by one unit of the last digit, and those that a stage
    reports by a tenth.
    """
    steps = [b - a for a, b in itertools.pairwise(positions)]
    if not steps:
        return None
    usual = usual_step(positions)
    least, most = min(steps), max(steps)
    unit = Decimal(1).scaleb(min(int(p.as_tuple().exponent) for p in positions))
    even = most - least <= max(unit, usual / 10) and most < 2 * least
    return None if even else max(range(len(steps)), key=lambda i: abs(steps[i] - usual))


def usual_step(positions: Sequence[Decimal]) -> Decimal:
    """Median (the lower one) of the steps between positions in rising order."""
    steps = sorted(b - a for a, b in itertools.pairwise(positions))
    return steps[(len(steps) - 1) // 2]
