"""Attention is a mechanism (level 1): stories that take two facts, reviews, and the bottleneck.

``python -m tx_course.experiments.memory`` prints every result over three seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.data.reviews import load_reviews
from tx_course.data.stories import PLACES, VOCABULARY, Stories, load_stories
from tx_course.data.text import PAD, Vocabulary
from tx_course.experiments import over_seeds
from tx_course.memory import AdditiveAttention, AttentionPooling, MemoryNetwork, MemoryNetworkConfig
from tx_course.recurrent import (
    BiLstmClassifier,
    FixedContext,
    LastState,
    MeanPooling,
    RecurrentTranslator,
    TextCnn,
)
from tx_course.train import cosine, fit, sampler
from tx_course.translation import greedy_decode

ANSWERS = torch.tensor([VOCABULARY.number[place] for place in PLACES])
"""The word of the vocabulary that names each place."""


@dataclass(frozen=True)
class StoryResult:
    """How well a memory network answers: the share of right ``accuracy`` on ``stories`` it never saw.

    ``found`` (hops, facts) is the share of those stories in which the strongest weight of a hop lies on a
    supporting fact; ``weights`` (b, hops, lines) are all the weights.
    """

    accuracy: float
    found: Tensor
    weights: Tensor
    stories: Stories
    model: MemoryNetwork


def two_facts(
    hops: int = 3,
    linear_start: bool = True,
    temporal: bool = True,
    steps: int = 1200,
    count: int = 10_000,
    seed: int = 0,
) -> StoryResult:
    """Train a memory network on ``count`` stories that need two facts each, and test it on 1,000 others.

    With ``linear_start`` a quarter of the steps are done without the softmax over the memory; without
    ``temporal`` the network cannot tell newer lines from older ones.
    """
    train, test = load_stories(count=count, seed=seed), load_stories(count=1000, seed=10**6)
    torch.manual_seed(seed)
    model = MemoryNetwork(MemoryNetworkConfig.small(len(VOCABULARY), hops))
    if not temporal:
        model.temporal.requires_grad_(False).zero_()
    draw = sampler(train.lines, train.questions, ANSWERS[train.answers], size=128)

    def loss(linear: bool) -> Callable[[nn.Module, tuple[Tensor, ...]], Tensor]:
        return lambda model, batch: F.cross_entropy(model(*batch[:2], linear=linear), batch[2])

    first = steps // 4 if linear_start else 0
    fit(model, draw, loss(linear=True), first, learning_rate=5e-3, clip=40, seed=seed)
    fit(
        model,
        draw,
        loss(linear=False),
        steps - first,
        learning_rate=5e-3,
        schedule=cosine(),
        clip=40,
        seed=seed + 1,
    )
    with torch.no_grad():
        logits, weights = model(test.lines, test.questions, weights=True)
    accuracy = (logits.argmax(-1) == ANSWERS[test.answers]).float().mean().item()
    strongest = weights.argmax(-1)  # (b, hops)
    found = (strongest[:, :, None] == test.support[:, None]).float().mean(0)  # (hops, facts)
    return StoryResult(accuracy, found, weights, test, model)


@dataclass(frozen=True)
class ReviewResult:
    """The share of test reviews judged right, and the model with the words it knows."""

    accuracy: float
    model: nn.Module
    vocabulary: Vocabulary


READERS: dict[str, Callable[[int], nn.Module]] = {
    "TextCNN": lambda words: TextCnn(words, 2, d_model=64, channels=50, dropout=0.3),
    "BiLSTM, last state": lambda words: BiLstmClassifier(words, 2, 64, LastState(), dropout=0.3),
    "BiLSTM, mean": lambda words: BiLstmClassifier(words, 2, 64, MeanPooling(), dropout=0.3),
    "BiLSTM, attention": lambda words: BiLstmClassifier(words, 2, 64, AttentionPooling(64, 64), dropout=0.3),
}
"""Four ways to make one vector of a sentence, by name; each is built for a number of words."""


def judge_reviews(reader: str, steps: int = 400, seed: int = 0) -> ReviewResult:
    """Train one of ``READERS`` to tell praise from panning on 6,530 sentences; test it on 1,500 others."""
    reviews = load_reviews()
    vocabulary = Vocabulary.of((text.split() for text, _ in reviews.train), at_least=2)

    def encode(part: tuple[tuple[str, int], ...]) -> tuple[Tensor, Tensor]:
        return vocabulary.encode([text.split() for text, _ in part]), torch.tensor(
            [label for _, label in part]
        )

    torch.manual_seed(seed)
    model = READERS[reader](len(vocabulary))
    draw = sampler(*encode(reviews.train), size=50)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return F.cross_entropy(model(_trim(batch[0])), batch[1])

    fit(model, draw, loss, steps, learning_rate=3e-3, schedule=cosine(0.1), weight_decay=0.01, seed=seed)
    tokens, labels = encode(reviews.test)
    with torch.no_grad():
        guess = model(tokens).argmax(-1)
    return ReviewResult((guess == labels).float().mean().item(), model, vocabulary)


def _trim(tokens: Tensor) -> Tensor:
    """Cut the columns in which every row is padding."""
    return tokens[:, : int((tokens != PAD).sum(dim=1).max())]


def words_looked_at(result: ReviewResult, at_least: int = 10) -> list[tuple[str, float]]:
    """Return the words attention pooling looks at, the most first, and how many times an even share they get.

    Measured on the test sentences, for words that occur ``at_least`` so many times there.
    """
    tokens = result.vocabulary.encode([text.split() for text, _ in load_reviews().test])
    with torch.no_grad():
        states, mask = result.model.encode(tokens)
        _, weights = result.model.pooling(states, mask, weights=True)
    times = weights * mask.sum(dim=1, keepdim=True)  # 1 where a word gets its even share
    count = torch.bincount(tokens[mask], minlength=len(result.vocabulary))
    share = torch.bincount(tokens[mask], times[mask].double(), minlength=len(count)) / count.clamp(min=1)
    share[count < at_least] = 0
    order = share.argsort(descending=True)[: int((count >= at_least).sum())]
    return [(result.vocabulary.words[word], share[word].item()) for word in order]


CONTEXTS: dict[str, Callable[[int], nn.Module]] = {
    "one state for all": lambda d_model: FixedContext(),
    "attention": lambda d_model: AdditiveAttention(d_model, d_model, d_model),
}
"""What a decoder is told of the source, by name."""
LENGTHS = (4, 8, 12, 16, 20, 24)


@dataclass(frozen=True)
class BottleneckResult:
    """The share of letters that come out right for sources of each length, in letters, and the model."""

    right: dict[int, float]
    model: RecurrentTranslator
    vocabulary: Vocabulary


def bottleneck(context: str, steps: int = 1000, d_model: int = 64, seed: int = 0) -> BottleneckResult:
    """Train a translator with one of ``CONTEXTS`` to write pieces of real sentences backwards.

    The pieces are 4 to 24 letters long. The same translator is tested on 200 new pieces of each length.
    """
    reviews = load_reviews()
    vocabulary = Vocabulary.of([text for text, _ in reviews.train], at_least=100)
    generator = torch.Generator().manual_seed(seed)
    text = "".join(text for text, _ in reviews.train)
    test_text = "".join(text for text, _ in reviews.test)

    def pieces(text: str, length: int, count: int) -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(text) - length, (count,), generator=generator).tolist()
        cut = [text[start : start + length] for start in starts]
        return vocabulary.encode(cut), vocabulary.encode([piece[::-1] for piece in cut], ends=True)

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return pieces(text, int(torch.randint(4, 25, (), generator=generator)), 64)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        source, target = batch
        return F.cross_entropy(model(source, target[:, :-1]).transpose(1, 2), target[:, 1:])

    torch.manual_seed(seed)
    model = RecurrentTranslator(len(vocabulary), len(vocabulary), d_model, CONTEXTS[context](d_model))
    fit(model, draw, loss, steps, learning_rate=4e-3, schedule=cosine(0.1), seed=seed)
    right = {}
    for length in LENGTHS:
        source, target = pieces(test_text, length, 200)
        written = greedy_decode(model, source, start=1, end=2, max_length=length)
        written = F.pad(written, (0, length - written.size(1)))
        right[length] = (written == target[:, 1:-1]).float().mean().item()
    return BottleneckResult(right, model, vocabulary)


def main() -> None:
    """Print each result over three seeds."""
    stories: dict[str, dict] = {
        "3 hops": {},
        "2 hops": {"hops": 2},
        "1 hop": {"hops": 1},
        "3 hops, no linear start": {"linear_start": False},
        "3 hops, no temporal encoding": {"temporal": False},
    }
    for name, arguments in stories.items():
        over_seeds(
            f"stories, {name}", lambda seed, arguments=arguments: _scores(two_facts(**arguments, seed=seed))
        )
    for name in READERS:
        over_seeds(
            f"reviews, {name}", lambda seed, name=name: {"right": judge_reviews(name, seed=seed).accuracy}
        )
    for name in CONTEXTS:
        over_seeds(f"backwards, {name}", lambda seed, name=name: bottleneck(name, seed=seed).right)


def _scores(result: StoryResult) -> dict[str, float]:
    first, second = result.found.amax(dim=0).tolist()
    return {"right": result.accuracy, "fact 1 found": first, "fact 2 found": second}


if __name__ == "__main__":
    main()
