"""The loss, the warm-up and decoding: equal to PyTorch's loss and to trying every sentence there is."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.tx_course.parity import close, draw, gpu, randomise
from tx_course.transformer import Transformer, TransformerConfig
from tx_course.translation import beam_search, greedy_decode, label_smoothing, warmup_schedule

PAD, START, END = 0, 1, 2
SOURCE = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0], [9, 3, 4, 0]])


class Dice:
    """A language of few words whose next word has a random chance that depends on all the words before it."""

    def __init__(self, vocabulary, spread=2.0, seed=0):
        self.vocabulary, self.spread, self.seed = vocabulary, spread, seed

    def encode(self, source):
        return source[..., None].double()

    def decode(self, target, memory, memory_mask):
        rows = [
            self.row(int(first), tuple(words))
            for first, words in zip(memory[:, 0, 0], target.tolist(), strict=True)
        ]
        return torch.stack(rows)[:, None]

    def row(self, first, words):
        number = int("".join(map(str, (self.seed, first, *(w for w in words)))))
        return self.spread * draw(self.vocabulary, seed=number)


def log_probability(dice, first, words):
    total = 0.0
    for i, word in enumerate(words):
        logits = dice.row(first, (START, *words[:i])).clone()
        logits[PAD] = -math.inf
        total += logits.log_softmax(-1)[word].item()
    return total


def every_sentence(vocabulary, max_length):
    others = [w for w in range(vocabulary) if w not in (PAD, END)]
    for n in range(max_length):
        for words in itertools.product(others, repeat=n):
            yield (*words, END)
    yield from itertools.product(others, repeat=max_length)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_as_wide_as_the_language_finds_the_best_sentence_of_all(seed, penalty):
    dice, sources = Dice(5, seed=seed), torch.tensor([[3], [4]])
    tokens, scores = beam_search(dice, sources, START, END, 4, beams=200, penalty=penalty)
    for row, score, first in zip(tokens.tolist(), scores.tolist(), (3, 4), strict=True):
        best = max(
            (log_probability(dice, first, words) / ((5 + len(words)) / 6) ** penalty, words)
            for words in every_sentence(5, 4)
        )
        assert tuple(w for w in row if w != PAD) == best[1]
        assert score == pytest.approx(best[0], abs=1e-9)


@given(seed=st.integers(0, 50), beams=st.integers(1, 6))
def test_the_score_is_the_sentences_own_and_never_above_the_best(seed, beams):
    dice = Dice(5, seed=seed)
    tokens, score = beam_search(dice, torch.tensor([[3]]), START, END, 4, beams=beams)
    words = tuple(w for w in tokens[0].tolist() if w != PAD)
    own = log_probability(dice, 3, words) / ((5 + len(words)) / 6) ** 0.6
    best = beam_search(dice, torch.tensor([[3]]), START, END, 4, beams=200)[1]
    assert score.item() == pytest.approx(own, abs=1e-9)
    assert score.item() <= best.item() + 1e-9


def model(seed=0):
    return randomise(Transformer(TransformerConfig(10, 6, 8, 2, 1, 12, dropout=0.0)), seed=seed).eval()


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_is_greedy_decoding(seed):
    greedy = greedy_decode(model(seed), SOURCE, START, END, 8)
    beam, _ = beam_search(model(seed), SOURCE, START, END, 8, beams=1)
    assert torch.equal(beam, greedy)


@pytest.mark.parametrize("seed", range(3))
def test_a_sentence_is_decoded_alike_alone_and_in_a_batch(seed):
    together, scores = beam_search(model(seed), SOURCE, START, END, 8)
    for i, row in enumerate(SOURCE):
        alone, score = beam_search(model(seed), row[row != PAD][None], START, END, 8)
        width = max(alone.size(1), together.size(1))
        pad = [F.pad(x, (0, width - x.size(-1))) for x in (alone[0], together[i])]
        assert torch.equal(*pad)
        torch.testing.assert_close(score[0], scores[i])


def test_greedy_stops_as_soon_as_every_sentence_has_ended_and_pads_the_rest():
    calls = []

    class Script:
        """Says 5 4 END to the first sentence and END to the second."""

        def encode(self, source):
            return source[..., None].double()

        def decode(self, target, memory, memory_mask):
            calls.append(target.size(1))
            said = torch.tensor([[5, 4, END, 3, 3], [END, 3, 3, 3, 3]])[:, : target.size(1)]
            return F.one_hot(said, 6).double()

    out = greedy_decode(Script(), torch.tensor([[3], [4]]), START, END, max_length=50)
    assert out.tolist() == [[5, 4, END], [END, PAD, PAD]]
    assert calls == [1, 2, 3]


def test_greedy_says_what_teacher_forcing_ranks_first():
    transformer = model(3)
    said = greedy_decode(transformer, SOURCE, START, END, 8)
    heard = torch.cat([torch.full((3, 1), START), said[:, :-1]], dim=1)
    logits = transformer(SOURCE, heard)
    logits[..., PAD] = -torch.inf
    real = said != PAD
    assert torch.equal(logits.argmax(-1)[real], said[real])


def test_no_sentence_is_longer_than_allowed():
    dice = Dice(5)
    dice.row = lambda first, words: torch.tensor([0.0, 0, -50, 1, 0]).double()  # hardly ever ends
    assert greedy_decode(dice, SOURCE, START, END, max_length=7).tolist() == [[3] * 7] * 3
    assert beam_search(dice, SOURCE, START, END, max_length=7)[0].tolist() == [[3] * 7] * 3


def test_length_normalisation_lets_a_longer_sentence_win():
    dice = Dice(5)
    table = {(START,): [0.0, 0, 0.31, 0.40, 0.29], (START, 3): [0, 0, 0.65, 0.2, 0.15]}
    dice.row = lambda first, words: torch.tensor(table.get(words, [0, 0, 1.0, 0, 0])).double().log()
    raw, _ = beam_search(dice, torch.tensor([[3]]), START, END, 4, penalty=0.0)
    normalised, _ = beam_search(dice, torch.tensor([[3]]), START, END, 4, penalty=1.0)
    assert raw[0].tolist()[:1] == [END]
    assert normalised[0].tolist()[:2] == [4, END]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_pytorchs_and_so_is_its_gradient(smoothing):
    target = torch.tensor([[3, 1, 0, 6], [2, 0, 0, 5]])
    ours = draw(2, 4, 7).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    loss = label_smoothing(ours, target, smoothing)
    expected = F.cross_entropy(
        theirs.flatten(0, 1), target.flatten(), label_smoothing=smoothing, ignore_index=0
    )
    loss.backward()
    expected.backward()
    close(loss, expected, "loss")
    close(ours.grad, theirs.grad, "gradient")
    assert (ours.grad[target == 0] == 0).all()


def test_a_loss_over_nothing_but_padding_is_refused():
    with pytest.raises(ValueError, match="only padding"):
        label_smoothing(draw(1, 2, 5), torch.tensor([[0, 0]]))


@given(step=st.integers(1, 20_000), d_model=st.sampled_from([64, 512]), warmup=st.integers(1, 5000))
def test_the_rate_rises_to_its_peak_at_the_end_of_the_warm_up_and_then_falls(step, d_model, warmup):
    rate, following = (warmup_schedule(s, d_model, warmup) for s in (step, step + 1))
    assert (following > rate) == (step < warmup)
    assert rate <= (d_model * warmup) ** -0.5 + 1e-12


def test_steps_count_from_one():
    with pytest.raises(ValueError, match="count from 1"):
        warmup_schedule(0)


@gpu
def test_the_gpu_says_the_same():
    cpu, gpu = model(1), model(1).cuda()
    tokens, score = beam_search(cpu, SOURCE, START, END, 8)
    gpu_tokens, gpu_score = beam_search(gpu, SOURCE.cuda(), START, END, 8)
    assert torch.equal(gpu_tokens.cpu(), tokens)
    torch.testing.assert_close(gpu_score.cpu(), score, atol=1e-10, rtol=1e-10)
    assert torch.equal(
        greedy_decode(gpu, SOURCE.cuda(), START, END, 8).cpu(), greedy_decode(cpu, SOURCE, START, END, 8)
    )
