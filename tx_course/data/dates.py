"""Dates as people write them, and as ISO 8601 does: a translation task with exactly one right answer."""

import datetime
import random
from dataclasses import dataclass

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
FIRST, DAYS = datetime.date(1950, 1, 1), 36525  # a hundred years

FORMATS = (
    lambda d: f"{d.day} {MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{MONTHS[d.month - 1]} {d.day}, {d.year}",
    lambda d: f"{WEEKDAYS[d.weekday()]} {d.day} {MONTHS[d.month - 1][:3]} {d.year}",
    lambda d: f"{d.day:02}.{d.month:02}.{d.year}",
    lambda d: f"{d.month}/{d.day}/{d.year % 100:02}",
)
"""Five ways to write a date. With dots the day comes first; with slashes the month, and 50 to 99 mean 19…"""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Dates:
    """Pairs (as written, ISO). The days of ``test`` are in ``train`` in no format."""

    train: tuple[Pair, ...]
    test: tuple[Pair, ...]


def load_dates(train: int = 20_000, test: int = 500, seed: int = 0) -> Dates:
    """Draw days of 1950 to 2049, each written in a format drawn at random.

    >>> load_dates(train=2, test=1).train
    (('Fri 15 Feb 2019', '2019-02-15'), ('6/18/25', '2025-06-18'))
    """
    generator = random.Random(seed)
    days = generator.sample(range(DAYS), train + test)
    pairs = []
    for day in days:
        date = FIRST + datetime.timedelta(days=day)
        pairs.append((generator.choice(FORMATS)(date), date.isoformat()))
    return Dates(tuple(pairs[:train]), tuple(pairs[train:]))
