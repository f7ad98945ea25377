"""From words to numbers: a vocabulary, and sentences as rows of one tensor."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

PAD, START, END, UNKNOWN = range(4)
"""The first four tokens of every vocabulary: filling, beginning, end, and a word never met before."""


@dataclass(frozen=True)
class Vocabulary:
    """The words a model knows; a word's number is its place in ``words``.

    >>> vocabulary = Vocabulary.of([["le", "chat"], ["le", "chien"]])
    >>> vocabulary.words
    ('<pad>', '<start>', '<end>', '<unknown>', 'le', 'chat', 'chien')
    >>> vocabulary.encode([["le", "chat"], ["souris"]]).tolist()
    [[4, 5], [3, 0]]
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, sentences: Iterable[Sequence[str]], at_least: int = 1) -> "Vocabulary":
        """Collect the words that occur ``at_least`` so many times, the commonest first, then by alphabet."""
        count = Counter(word for sentence in sentences for word in sentence)
        known = sorted((word for word in count if count[word] >= at_least), key=lambda w: (-count[w], w))
        return cls(("<pad>", "<start>", "<end>", "<unknown>", *known))

    def __len__(self) -> int:
        """Return how many words there are, the four special ones included."""
        return len(self.words)

    @cached_property
    def number(self) -> dict[str, int]:
        """The number of each word."""
        return {word: i for i, word in enumerate(self.words)}

    def encode(
        self, sentences: Sequence[Sequence[str]], ends: bool = False, length: int | None = None
    ) -> Tensor:
        """Return the numbers of the words, int64 (sentences, length), filled up with ``PAD``.

        With ``ends`` each sentence stands between ``START`` and ``END``. ``length`` is that of the longest
        sentence unless given; a longer sentence is cut there.
        """
        rows = [[self.number.get(word, UNKNOWN) for word in sentence] for sentence in sentences]
        if ends:
            rows = [[START, *row, END] for row in rows]
        length = length or max(map(len, rows))
        return torch.tensor([row[:length] + [PAD] * (length - len(row)) for row in rows])

    def decode(self, tokens: Tensor) -> list[str]:
        """Return the words of one row of tokens (q), up to the first ``END``, without ``PAD`` and ``START``.

        >>> Vocabulary.of([["oui"]]).decode(torch.tensor([1, 4, 2, 4, 0]))
        ['oui']
        """
        row = tokens.tolist()
        row = row[: row.index(END)] if END in row else row
        return [self.words[token] for token in row if token not in (PAD, START)]
