"""Attention is all you need (level 3): dates, and real translations into French and Chinese.

``python -m tx_course.experiments.transformer`` prints every result over three seeds. Scores of translations
are BLEU, 0 to 100, by sacrebleu.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tx_course.data.dates import load_dates
from tx_course.data.text import END, PAD, START, Vocabulary
from tx_course.data.translations import load_translations, split_characters, split_words
from tx_course.experiments import over_seeds
from tx_course.train import cosine, fit, sampler
from tx_course.transformer import Transformer, TransformerConfig
from tx_course.translation import beam_search, greedy_decode, label_smoothing

Split = Callable[[str], list[str]]


@dataclass(frozen=True)
class Translator:
    """A trained Transformer with the words it reads and writes, and how it splits what it reads."""

    model: Transformer
    source: Vocabulary
    target: Vocabulary
    split: Split

    def read(self, sentences: Sequence[str]) -> Tensor:
        """Return the tokens (b, s) of ``sentences``."""
        return self.source.encode([self.split(sentence) for sentence in sentences])

    def greedy(self, sentences: Sequence[str], max_length: int = 30) -> list[list[str]]:
        """Return the words of each translation, decoded greedily."""
        return self._words(greedy_decode(self.model, self.read(sentences), START, END, max_length))

    def beam(self, sentences: Sequence[str], beams: int = 4, max_length: int = 30) -> list[list[str]]:
        """Return the words of each translation, decoded by beam search."""
        return self._words(beam_search(self.model, self.read(sentences), START, END, max_length, beams)[0])

    def _words(self, tokens: Tensor) -> list[list[str]]:
        return [self.target.decode(row) for row in tokens]


def train_translator(
    pairs: Sequence[tuple[str, str]],
    split_source: Split,
    split_target: Split,
    steps: int,
    *,
    at_least: int = 1,
    dropout: float = 0.0,
    smoothing: float = 0.0,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> Translator:
    """Train the small Transformer on ``pairs``, knowing the words that occur ``at_least`` so many times."""
    sources = [split_source(source) for source, _ in pairs]
    targets = [split_target(target) for _, target in pairs]
    source, target = Vocabulary.of(sources, at_least), Vocabulary.of(targets, at_least)
    torch.manual_seed(seed)
    model = Transformer(replace(TransformerConfig.small(len(source), len(target)), dropout=dropout))
    draw = sampler(source.encode(sources), target.encode(targets, ends=True), size=64)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        read, written = (tokens[:, : int((tokens != PAD).sum(dim=1).max())] for tokens in batch)
        return label_smoothing(model(read, written[:, :-1]), written[:, 1:], smoothing)

    fit(model, draw, loss, steps, learning_rate=learning_rate, schedule=cosine(0.1), seed=seed)
    return Translator(model, source, target, split_source)


@dataclass(frozen=True)
class DateResult:
    """The share of test dates of which every letter is right, and the model."""

    exact: float
    translator: Translator


def iso_dates(steps: int = 1200, seed: int = 0) -> DateResult:
    """Train on 20,000 dates in five formats to write them as ISO dates, and test on 500 days never seen."""
    dates = load_dates(seed=seed)
    translator = train_translator(dates.train, list, list, steps, seed=seed)
    written = translator.greedy([date for date, _ in dates.test], max_length=11)
    right = sum("".join(guess) == iso for guess, (_, iso) in zip(written, dates.test, strict=True))
    return DateResult(right / len(dates.test), translator)


@dataclass(frozen=True)
class TranslationResult:
    """BLEU on 200 sentences never seen: ``copy`` leaves them in English. And the model."""

    copy: float
    greedy: float
    beam: float
    translator: Translator


def translate(language: str, steps: int = 800, seed: int = 0) -> TranslationResult:
    """Train on real translations from English into ``language``, "fr" or "zh", and test on sentences never
    seen.

    Needs sacrebleu, which is a requirement of the tests.
    """
    pairs = load_translations(language)
    split = split_words if language == "fr" else split_characters
    translator = train_translator(
        pairs.train, split_words, split, steps, dropout=0.2, smoothing=0.1, seed=seed
    )
    english = [source for source, _ in pairs.test]
    right = [split(target) for _, target in pairs.test]
    return TranslationResult(
        copy=bleu([split(sentence) for sentence in english], right),
        greedy=bleu(translator.greedy(english), right),
        beam=bleu(translator.beam(english), right),
        translator=translator,
    )


def bleu(translations: Sequence[list[str]], right: Sequence[list[str]]) -> float:
    """Return the corpus BLEU, 0 to 100, of ``translations`` already split as ``right`` is: words and marks of
    French, characters of Chinese.

    >>> round(bleu([["a", "b", "c", "d"]], [["a", "b", "c", "d"]]))
    100
    """
    from sacrebleu import BLEU  # not needed to learn, only to score

    metric = BLEU(tokenize="none", force=True)
    joined = [[" ".join(words) for words in sentences] for sentences in (translations, right)]
    return metric.corpus_score(joined[0], [joined[1]]).score


def main() -> None:
    """Print each result over three seeds."""
    over_seeds("dates", lambda seed: {"exact": iso_dates(seed=seed).exact})
    for language in ("fr", "zh"):

        def scores(seed: int, language: str = language) -> dict[str, float]:
            result = translate(language, seed=seed)
            return {"copy": result.copy, "greedy": result.greedy, "beam": result.beam}

        over_seeds(f"English to {language}", scores)


if __name__ == "__main__":
    main()
