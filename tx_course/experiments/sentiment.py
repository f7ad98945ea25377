"""Few labels (level 4): is a sentence about a film praise or not, learnt from 50, 200 and 2,000 examples?

Five ways, on the same labels and the same test sentences: counting words, a tiny BERT from scratch, the same
after pretraining on unlabelled sentences, a real BERT as it comes, and a real BERT fine-tuned.
``python -m tx_course.experiments.sentiment`` prints the table over three seeds.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.bert import Bert, BertClassifier, BertConfig, masked_mean
from tx_course.data.reviews import load_reviews
from tx_course.data.text import Vocabulary
from tx_course.experiments.bert import load_corpus, pretrain_bert, words_of
from tx_course.pretrained import encode, load_pretrained
from tx_course.train import cosine, fit, sampler

LONGEST = 40  # tokens of a sentence that are read


@dataclass(frozen=True)
class Task:
    """Labelled sentences: some to learn from, others to be judged by; labels (n) are 1 for praise."""

    texts: list[str]
    labels: Tensor
    test_texts: list[str]
    test_labels: Tensor


def few_labels(count: int, seed: int = 0, test: int = 600) -> Task:
    """Return ``count`` labelled sentences drawn by ``seed``, and ``test`` others, the same for every seed."""
    reviews = load_reviews()
    texts, labels = zip(*random.Random(seed).sample(reviews.train, count), strict=True)
    test_texts, test_labels = zip(*reviews.test[:test], strict=True)
    return Task(list(texts), torch.tensor(labels), list(test_texts), torch.tensor(test_labels))


def count_words(task: Task, seed: int = 0) -> float:
    """Return the share right of logistic regression on which words occur."""
    vocabulary = Vocabulary.of(map(words_of, task.texts))

    def bags(texts: list[str]) -> Tensor:
        tokens = vocabulary.encode([words_of(text) for text in texts])
        present = torch.zeros(len(texts), len(vocabulary)).scatter_(1, tokens, 1.0)
        present[:, :4] = 0  # padding and unknown words say nothing
        return F.normalize(present, dim=1)

    return _linear(bags(task.texts), bags(task.test_texts), task, seed, weight_decay=0.3, learning_rate=0.1)


def real_frozen(task: Task, seed: int = 0) -> float:
    """Return the share right of logistic regression on a real BERT's averaged features, never trained."""
    bert, tokenizer = load_pretrained()

    @torch.no_grad()
    def features(texts: list[str]) -> Tensor:
        tokens = encode(tokenizer, texts)[:, :LONGEST]
        parts = [masked_mean(bert(_trim(x)), _trim(x) != 0) for x in tokens.split(32)]
        return torch.cat(parts)

    train, test = features(task.texts), features(task.test_texts)
    mean, spread = train.mean(dim=0), train.std(dim=0)
    return _linear((train - mean) / spread, (test - mean) / spread, task, seed, weight_decay=1.0)


def real_fine_tuned(task: Task, seed: int = 0) -> float:
    """Return the share right of a real BERT of which every weight is trained: 25, 40 or 60 steps of 16."""
    bert, tokenizer = load_pretrained()
    steps = 25 if len(task.texts) < 100 else 40 if len(task.texts) < 1000 else 60
    tokens, test = encode(tokenizer, task.texts), encode(tokenizer, task.test_texts)
    return _fine_tune(bert, tokens, test, task, seed, steps, learning_rate=2e-4)


def tiny(task: Task, vocabulary: Vocabulary, start: Bert | None = None, seed: int = 0) -> float:
    """Return the share right of a small BERT trained on the labels, from ``start`` or from scratch."""
    torch.manual_seed(seed)
    bert = Bert(BertConfig.small(len(vocabulary) + 1))
    if start is not None:
        bert.load_state_dict(start.state_dict())
    tokens, test = (
        vocabulary.encode([words_of(text) for text in texts], ends=True)
        for texts in (task.texts, task.test_texts)
    )
    return _fine_tune(bert, tokens, test, task, seed, steps=200, learning_rate=1e-3)


def _fine_tune(
    bert: Bert, tokens: Tensor, test: Tensor, task: Task, seed: int, steps: int, learning_rate: float
) -> float:
    torch.manual_seed(seed)
    model = BertClassifier(bert, classes=2)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return F.cross_entropy(model(_trim(batch[0])), batch[1])

    draw = sampler(tokens[:, :LONGEST], task.labels, size=16)
    fit(
        model,
        draw,
        loss,
        steps,
        learning_rate=learning_rate,
        schedule=cosine(0.1),
        weight_decay=0.01,
        seed=seed,
    )
    with torch.no_grad():
        guess = torch.cat([model(_trim(x)).argmax(dim=1) for x in test[:, :LONGEST].split(32)])
    return (guess == task.test_labels).float().mean().item()


def _linear(
    features: Tensor, test: Tensor, task: Task, seed: int, weight_decay: float, learning_rate: float = 0.01
) -> float:
    """Return the share right of a linear layer on fixed features."""
    torch.manual_seed(seed)
    model = nn.Linear(features.size(1), 2)
    fit(
        model,
        lambda generator: (features, task.labels),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        steps=200,
        learning_rate=learning_rate,
        schedule=cosine(),
        weight_decay=weight_decay,
    )
    with torch.no_grad():
        return (model(test).argmax(dim=1) == task.test_labels).float().mean().item()


def _trim(tokens: Tensor) -> Tensor:
    """Cut the columns in which every row is padding (0)."""
    return tokens[:, : int((tokens != 0).sum(dim=1).max())]


def main() -> None:
    """Print the share right of each way over three seeds, and the seconds of a run."""
    corpus = load_corpus()
    pretrained = pretrain_bert(corpus).bert
    ways: dict[str, Callable[[Task, int], float]] = {
        "words, counted": count_words,
        "tiny BERT": lambda task, seed: tiny(task, corpus.vocabulary, seed=seed),
        "tiny BERT, pretrained": lambda task, seed: tiny(task, corpus.vocabulary, pretrained, seed),
        "real BERT, frozen": real_frozen,
        "real BERT, fine-tuned": real_fine_tuned,
    }
    for count in (50, 200, 2000):
        for name, way in ways.items():
            start = time.perf_counter()
            right = torch.tensor([way(few_labels(count, seed), seed) for seed in range(3)])
            seconds = (time.perf_counter() - start) / 3
            print(
                f"{count:5} labels  {name:22} {right.mean():.3f} ± {right.std():.3f}  {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
