"""The experiments of level 4: fair to every program, and right where they can be worked by hand."""

import pytest
import torch
from torch.nn import functional as F

from tx_course.bert import Gpt, GptConfig
from tx_course.data.text import PAD, UNKNOWN, Vocabulary
from tx_course.experiments.bert import Corpus, count_guesses, gpt_guesses, load_corpus, score, words_of
from tx_course.experiments.sentiment import few_labels


@pytest.fixture(scope="module")
def corpus():
    return load_corpus()


def toy():
    sentences = [["a", "b", "c"], ["a", "b", "c"], ["a", "d", "e"], ["a", "d", "e"], ["a", "d", "e"]]
    vocabulary = Vocabulary.of(sentences)
    tokens = vocabulary.encode(sentences, ends=True)
    return Corpus(vocabulary, tokens, tokens[:1], torch.tensor([2]))  # hide b between a and c


def test_no_sentence_is_trained_on_and_asked_for(corpus):
    train = {tuple(row) for row in corpus.train.tolist()}
    # Sentences that differ only in rare words look the same once those are unknown.
    same = sum(tuple(row) in train for row in corpus.test.tolist() if UNKNOWN not in row)
    assert same == 0


def test_only_known_words_are_asked_for(corpus):
    answers = corpus.test[torch.arange(len(corpus.test)), corpus.place]
    assert (answers > UNKNOWN).all()
    assert not torch.isin(answers, torch.tensor(corpus.special)).any()


def test_counting_by_hand():
    guesses = count_guesses(toy(), smoothing=1e-9)
    number = toy().vocabulary.number
    assert guesses["commonest word"].argmax().item() == number["a"]
    left = guesses["word on the left"].exp()[0]
    assert left[number["d"]].item() == pytest.approx(0.6, abs=1e-4)
    assert left[number["b"]].item() == pytest.approx(0.4, abs=1e-4)
    both = guesses["words on both sides"].exp()[0]  # only b stands between a and c
    assert both[number["b"]].item() == pytest.approx(1.0, abs=1e-4)


def test_every_guess_is_a_distribution_and_a_sure_right_one_scores_one():
    for guesses in count_guesses(toy()).values():
        torch.testing.assert_close(guesses.exp().sum(dim=1), torch.ones(1))
    corpus = toy()
    sure = (100.0 * F.one_hot(corpus.test[:, 2], corpus.mask + 1)).log_softmax(dim=-1)
    assert score(sure, corpus).accuracy == 1
    assert score(sure, corpus).loss == pytest.approx(0, abs=1e-6)


def test_gpt_does_not_see_the_word_it_names_nor_those_after():
    torch.manual_seed(0)
    corpus = toy()
    model = Gpt(GptConfig.small(corpus.mask + 1)).eval()
    changed = corpus.test.clone()
    changed[:, 2:] = PAD
    other = Corpus(corpus.vocabulary, corpus.train, changed, corpus.place)
    assert torch.equal(gpt_guesses(model, corpus), gpt_guesses(model, other))


def test_seeds_draw_different_labels_and_the_same_test():
    first, same, other = few_labels(50, 0), few_labels(50, 0), few_labels(50, 1)
    assert first.texts == same.texts != other.texts
    assert first.test_texts == other.test_texts
    assert not set(first.texts) & set(first.test_texts)


def test_words_are_lower_case_and_marks_stand_alone():
    assert words_of("Isn't it GOOD? (Yes; 10/10!)") == ["isn't", "it", "good", "?", "yes", ";", "!"]
