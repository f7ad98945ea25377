"""Fill in the blank (level 4): a tiny BERT, a tiny GPT and plain counting on real sentences about films.

One word of each sentence nobody trained on is hidden, and each program names it: BERT from both sides, GPT
from the words before it, and counts of neighbouring words from neither, one or both sides.
``python -m tx_course.experiments.bert`` prints the table over three seeds.
"""

import re
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.bert import BertConfig, BertForPretraining, Gpt, GptConfig
from tx_course.data.reviews import load_reviews
from tx_course.data.text import END, PAD, START, UNKNOWN, Vocabulary
from tx_course.pretraining import IGNORE, mask_tokens
from tx_course.train import cosine, fit, sampler

SIZE = 128  # sentences a batch


@dataclass(frozen=True)
class Corpus:
    """Sentences as tokens: ``train`` (n, q), and ``test`` (n, q), of which the word at ``place`` (n) is to be
    named. ``mask`` is the token of the blank.
    """

    vocabulary: Vocabulary
    train: Tensor
    test: Tensor
    place: Tensor

    @property
    def mask(self) -> int:
        """The token of the blank: the first number after the words."""
        return len(self.vocabulary)

    @property
    def special(self) -> list[int]:
        """The tokens never hidden; words not in the vocabulary are not asked for either."""
        return [PAD, START, END, UNKNOWN, self.mask]


def words_of(text: str) -> list[str]:
    """Return the lower-case words and marks of a text.

    >>> words_of("It's GREAT, really.")
    ["it's", 'great', ',', 'really', '.']
    """
    return re.findall(r"[a-z]+(?:'[a-z]+)?|[.,!?;]", text.lower())


def load_corpus(size: int = 2000, held_out: int = 3000, longest: int = 20) -> Corpus:
    """Return the sentences of 6 to ``longest`` words in the film reviews, with the ``size`` commonest words.

    No sentence is in both parts, and the test sentences of the sentiment task are in neither.
    """
    reviews = load_reviews().train + load_reviews("imdb").train[:12_000]  # enough for the steps below
    texts = [text for text, _ in reviews]
    pieces = (piece for text in texts for piece in re.split(r"(?<=[.!?])\s+|<br />", text))
    found = (tuple(words_of(piece)) for piece in pieces)
    sentences = list(dict.fromkeys(s for s in found if 6 <= len(s) <= longest))
    common = Vocabulary.of(sentences).words[: size + 4]
    vocabulary = Vocabulary(common)
    tokens = vocabulary.encode(sentences, ends=True)
    tokens = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))]
    test, train = tokens[:held_out], tokens[held_out:]
    test = test[(test > UNKNOWN).any(dim=1)]
    place = torch.multinomial((test > UNKNOWN).double(), 1, generator=torch.Generator().manual_seed(0))[:, 0]
    return Corpus(vocabulary, train, test, place)


def pretrain_bert(corpus: Corpus, steps: int = 900, seed: int = 0) -> BertForPretraining:
    """Train a small BERT to name hidden words, and return it; its bias starts at how common each word is."""
    torch.manual_seed(seed)
    model = BertForPretraining(BertConfig.small(len(corpus.vocabulary) + 1))
    with torch.no_grad():
        model.bias.copy_(_unigram(corpus).log())
    sample = sampler(corpus.train, size=SIZE)

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        (tokens,) = sample(generator)
        return mask_tokens(tokens, corpus.mask, corpus.mask, corpus.special, generator, rate=0.2)

    def loss(model: BertForPretraining, batch: tuple[Tensor, ...]) -> Tensor:
        seen, labels = batch
        chosen = labels != IGNORE  # the others need no logits, which are most of the work
        return F.cross_entropy(model.words(model.bert(seen)[chosen]), labels[chosen])

    fit(model, draw, loss, steps, learning_rate=4e-3, schedule=cosine(0.1), weight_decay=0.01, seed=seed)
    return model


def pretrain_gpt(corpus: Corpus, steps: int = 900, seed: int = 0) -> Gpt:
    """Train a small GPT to name each next word, and return it."""
    torch.manual_seed(seed)
    model = Gpt(GptConfig.small(len(corpus.vocabulary) + 1))

    def loss(model: Gpt, batch: tuple[Tensor, ...]) -> Tensor:
        (tokens,) = batch
        target = tokens[:, 1:]
        chosen = target > UNKNOWN
        logits = F.linear(model.features(tokens[:, :-1])[chosen], model.word.weight)
        return F.cross_entropy(logits, target[chosen])

    draw = sampler(corpus.train, size=SIZE)
    fit(model, draw, loss, steps, learning_rate=4e-3, schedule=cosine(0.1), weight_decay=0.01, seed=seed)
    return model


@torch.no_grad()
def bert_guesses(model: BertForPretraining, corpus: Corpus) -> Tensor:
    """Return log-probabilities (n, v) of the hidden words, from both sides."""
    rows = torch.arange(len(corpus.test))
    seen = corpus.test.clone()
    seen[rows, corpus.place] = corpus.mask
    return model.words(model.bert(seen)[rows, corpus.place]).log_softmax(dim=-1)


@torch.no_grad()
def gpt_guesses(model: Gpt, corpus: Corpus) -> Tensor:
    """Return log-probabilities (n, v) of the hidden words, from the words before."""
    hidden = model.features(corpus.test)[torch.arange(len(corpus.test)), corpus.place - 1]
    return F.linear(hidden, model.word.weight).log_softmax(dim=-1)


def count_guesses(corpus: Corpus, smoothing: float = 3.0) -> dict[str, Tensor]:
    """Return log-probabilities (n, v) by counting: how common a word is, how often it follows the word on the
    left, and that times how often the word on the right follows it. ``smoothing`` is how many made-up
    sightings in proportion to commonness each count gets.
    """
    unigram = _unigram(corpus)
    v = len(unigram)
    left, right = corpus.train[:, :-1], corpus.train[:, 1:]
    both = (left != PAD) & (right != PAD)
    pair = torch.bincount((left * v + right)[both], minlength=v * v).reshape(v, v)
    follows = pair + smoothing * unigram
    follows /= follows.sum(dim=1, keepdim=True)  # (word, next word)
    rows = torch.arange(len(corpus.test))
    before, after = (corpus.test[rows, corpus.place + i] for i in (-1, 1))
    one_side = follows[before]
    return {
        "commonest word": unigram.log().expand(len(rows), v),
        "word on the left": one_side.log(),
        "words on both sides": (one_side * follows[:, after].T).log().log_softmax(dim=-1),
    }


def _unigram(corpus: Corpus) -> Tensor:
    count = torch.bincount(corpus.train[corpus.train > UNKNOWN], minlength=corpus.mask + 1).float() + 0.1
    return count / count.sum()


@dataclass(frozen=True)
class FillIn:
    """How well a program names hidden words: the share right, and its loss in nats a word."""

    accuracy: float
    loss: float


def score(guesses: Tensor, corpus: Corpus) -> FillIn:
    """Compare log-probabilities (n, v) with the hidden words."""
    answer = corpus.test[torch.arange(len(corpus.test)), corpus.place]
    right = (guesses.argmax(dim=-1) == answer).float().mean()
    return FillIn(right.item(), F.nll_loss(guesses, answer).item())


def fill_in(corpus: Corpus, bert: BertForPretraining, gpt: Gpt) -> dict[str, FillIn]:
    """Score the two models and the three ways of counting on the same blanks."""
    guesses = count_guesses(corpus)
    guesses["GPT"] = gpt_guesses(gpt, corpus)
    guesses["BERT"] = bert_guesses(bert, corpus)
    return {name: score(x, corpus) for name, x in guesses.items()}


def _timed(train, corpus: Corpus, seed: int) -> tuple[nn.Module, float]:
    start = time.perf_counter()
    return train(corpus, seed=seed), time.perf_counter() - start


def main() -> None:
    """Print the table over three seeds."""
    corpus = load_corpus()
    print(f"{len(corpus.train):,} sentences, {len(corpus.vocabulary):,} words, {len(corpus.test):,} blanks")
    results, seconds = [], []
    for seed in range(3):
        bert, bert_seconds = _timed(pretrain_bert, corpus, seed)
        gpt, gpt_seconds = _timed(pretrain_gpt, corpus, seed)
        results.append(fill_in(corpus, bert, gpt))
        seconds.append((bert_seconds, gpt_seconds))
        print(f"seed {seed}: BERT {bert_seconds:.0f} s, GPT {gpt_seconds:.0f} s")
    for name in results[0]:
        right = torch.tensor([r[name].accuracy for r in results])
        loss = torch.tensor([r[name].loss for r in results])
        print(f"{name:20} {right.mean():.3f} ± {right.std():.3f} right, {loss.mean():.2f} nats a word")


if __name__ == "__main__":
    main()
