"""Making lessons out of unlabelled text (level 4): hidden words and sentence pairs.

Axes: b batch, q positions, v vocabulary. Labels are tokens, or ``IGNORE`` where there is nothing to guess.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = -100
"""The label of a position that does not count, as PyTorch's ``cross_entropy`` has it."""


def mask_tokens(
    tokens: Tensor,
    mask_token: int,
    vocabulary: int,
    special: Sequence[int],
    generator: torch.Generator | None = None,
    rate: float = 0.15,
) -> tuple[Tensor, Tensor]:
    """Hide some words to be guessed, and return what the model sees and what it should say, both (b, q).

    Each token of ``tokens`` (b, q) not in ``special`` (give [PAD] and all the other special tokens) is chosen
    with probability ``rate``. Of the chosen, 80 % become ``mask_token``, 10 % a random token below
    ``vocabulary``, and 10 % stay, so that the model may trust no word blindly. Labels are the chosen tokens,
    ``IGNORE`` elsewhere. ``tokens`` is not changed. ``generator``, on the
    tokens' device, makes the draw repeatable. Source: Devlin et al. 2019, 3.1.

    >>> seen, labels = mask_tokens(torch.tensor([[0, 5, 6]]), 1, vocabulary=9, special=[0, 1], rate=1.0)
    >>> labels.tolist()
    [[-100, 5, 6]]
    """
    draw = torch.rand(2, *tokens.shape, device=tokens.device, generator=generator)
    ordinary = ~torch.isin(tokens, tokens.new_tensor(special))
    chosen = (draw[0] < rate) & ordinary
    fate = draw[1]  # a second draw: the first is known to be below the rate where a token was chosen
    random = torch.randint(vocabulary, tokens.shape, device=tokens.device, generator=generator)
    seen = torch.where(chosen & (fate < 0.8), mask_token, tokens)
    seen = torch.where(chosen & (fate >= 0.8) & (fate < 0.9), random, seen)
    return seen, tokens.masked_fill(~chosen, IGNORE)


def sentence_pairs(
    documents: Sequence[Sequence[list[int]]], cls: int, sep: int, generator: torch.Generator
) -> list[tuple[list[int], list[int], int]]:
    """Pair each sentence with its successor or, half of the time, with one from another document.

    ``documents`` are lists of sentences, each a list of tokens. Each pair is (tokens, segments, label): the
    tokens are [CLS] first [SEP] second [SEP], segments 0 up to the first [SEP] and 1 after it, label 0 if the
    second follows the first and 1 if it does not. Source: Devlin et al. 2019, 3.1.
    Raises ValueError with fewer than two documents, or if one is empty.

    >>> draw = torch.Generator().manual_seed(0)
    >>> sentence_pairs([[[5], [6]], [[7]]], cls=1, sep=2, generator=draw)[0][1]
    [0, 0, 0, 1, 1]
    """
    if len(documents) < 2 or not all(documents):
        raise ValueError(f"expected two or more documents, none empty, got {[len(d) for d in documents]}")

    def draw(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    pairs = []
    for d, document in enumerate(documents):
        for first, second in pairwise(document):
            strange = draw(2)
            if strange:
                other = documents[(d + 1 + draw(len(documents) - 1)) % len(documents)]
                second = other[draw(len(other))]
            tokens = [cls, *first, sep, *second, sep]
            pairs.append((tokens, [0] * (len(first) + 2) + [1] * (len(second) + 1), strange))
    return pairs


def mlm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy (nats) of ``logits`` (b, q, v) where ``labels`` (b, q) is not ``IGNORE``.

    Raises ValueError if nothing is to be guessed, where the mean would be 0/0.

    >>> round(mlm_loss(torch.zeros(1, 2, 4), torch.tensor([[IGNORE, 3]])).item(), 4)  # log 4
    1.3863
    """
    if (labels == IGNORE).all():
        raise ValueError("expected at least one label to guess, got only IGNORE; raise the masking rate")
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORE)


def pretraining_loss(words: Tensor, follows: Tensor, labels: Tensor, strange: Tensor) -> Tensor:
    """Return BERT's loss (nats): hidden words plus next sentence (Devlin et al. 2019, A.2).

    ``words`` (b, q, v) and ``follows`` (b, 2) are what ``BertForPretraining`` returns; ``labels`` (b, q) are
    those of ``mask_tokens``, ``strange`` (b) those of ``sentence_pairs``. Each has its own mean: label 0
    means "follows" there and must not be mistaken for padding.

    >>> loss = pretraining_loss(
    ...     torch.zeros(1, 2, 4), torch.zeros(1, 2), torch.tensor([[IGNORE, 3]]), torch.tensor([0])
    ... )
    >>> round(loss.item(), 4)  # log 4 + log 2
    2.0794
    """
    return mlm_loss(words, labels) + F.cross_entropy(follows, strange)
