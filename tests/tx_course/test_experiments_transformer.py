"""The experiments of level 3, cut short: a translator learns and repeats itself, and BLEU is what it says."""

import pytest

from tx_course.data.dates import load_dates
from tx_course.data.translations import load_translations, split_characters, split_words
from tx_course.experiments.transformer import bleu, train_translator

PAIRS = [("open the file", "ouvrir le fichier"), ("close the file", "fermer le fichier")] * 4


def test_a_translator_learns_two_sentences_by_heart():
    translator = train_translator(PAIRS, split_words, split_words, steps=60)
    assert translator.greedy(["open the file"]) == [["ouvrir", "le", "fichier"]]
    assert translator.beam(["close the file"]) == [["fermer", "le", "fichier"]]


def test_a_translator_is_the_same_with_the_same_seed():
    first, again, other = (train_translator(PAIRS, list, list, steps=3, seed=seed) for seed in (1, 1, 2))
    weights = [translator.model.source_embedding.weight for translator in (first, again, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_every_letter_of_a_test_date_is_known_from_training():
    dates = load_dates()
    assert set("".join(date for date, _ in dates.test)) <= set("".join(date for date, _ in dates.train))


def test_bleu_is_100_for_the_right_words_0_for_others_and_between_for_some():
    right = [["a", "b", "c", "d", "e"]]
    assert bleu(right, right) == pytest.approx(100)
    assert bleu([["v", "w", "x", "y", "z"]], right) == 0
    assert 0 < bleu([["a", "b", "c", "d", "x"]], right) < 100


@pytest.mark.parametrize(("language", "split"), [("fr", split_words), ("zh", split_characters)])
def test_english_left_as_it_is_scores_next_to_nothing(language, split):
    english, right = zip(*load_translations(language).test, strict=True)
    assert bleu([split(s) for s in english], [split(s) for s in right]) < 5
