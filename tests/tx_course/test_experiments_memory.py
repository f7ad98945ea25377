"""The experiments of level 1, cut short: they repeat, they measure what they say, they learn at all."""

import pytest
import torch

from tx_course.data.text import Vocabulary
from tx_course.experiments.memory import (
    LENGTHS,
    READERS,
    ReviewResult,
    bottleneck,
    judge_reviews,
    two_facts,
    words_looked_at,
)


def test_a_story_result_counts_the_strongest_weights_that_lie_on_supporting_facts():
    result = two_facts(steps=2, count=200)
    assert result.weights.shape == (1000, 3, 12)
    on_second = sum(
        bool(result.weights[row, 1].argmax() == result.stories.support[row, 1]) for row in range(1000)
    )
    assert result.found[1, 1].item() == pytest.approx(on_second / 1000)


def test_stories_give_the_same_result_with_the_same_seed():
    first, again, other = (two_facts(steps=3, count=200, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.weights, again.weights)
    assert not torch.equal(first.weights, other.weights)


def test_without_temporal_encoding_the_network_never_learns_one():
    assert (two_facts(steps=3, count=200, temporal=False).model.temporal == 0).all()


def test_reviews_give_the_same_result_with_the_same_seed():
    first, again, other = (judge_reviews("TextCNN", steps=3, seed=seed) for seed in (1, 1, 2))
    assert first.accuracy == again.accuracy
    assert torch.equal(first.model.output.weight, again.model.output.weight)
    assert not torch.equal(first.model.output.weight, other.model.output.weight)


def test_words_looked_at_get_an_even_share_on_average():
    vocabulary = Vocabulary.of([["good", "bad"]])
    torch.manual_seed(0)
    model = READERS["BiLSTM, attention"](len(vocabulary)).eval()
    torch.nn.init.zeros_(model.pooling.question)  # every word gets the same weight
    shares = words_looked_at(ReviewResult(0.5, model, vocabulary))
    assert {word for word, _ in shares} <= set(vocabulary.words)
    assert all(share == pytest.approx(1, abs=1e-5) for _, share in shares)


def test_the_bottleneck_is_measured_at_every_length():
    result = bottleneck("one state for all", steps=2, d_model=8)
    assert tuple(result.right) == LENGTHS
    assert all(0 <= share <= 1 for share in result.right.values())
