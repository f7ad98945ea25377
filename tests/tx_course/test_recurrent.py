"""What attention replaced: padding is not read, contexts are what they claim to be."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tx_course.memory import AdditiveAttention, AttentionPooling
from tx_course.recurrent import (
    BiLstm,
    BiLstmClassifier,
    FixedContext,
    LastState,
    MeanPooling,
    RecurrentTranslator,
    TextCnn,
)
from tx_course.translation import greedy_decode

V, D = 12, 8


def seeded(make):
    torch.manual_seed(0)
    return make().double().eval()


TEXTS = torch.tensor([[3, 7, 4, 9, 5], [6, 8, 3, 0, 0], [5, 0, 0, 0, 0]])
CLASSIFIERS = {
    "last state": lambda: BiLstmClassifier(V, 3, D, LastState()),
    "mean": lambda: BiLstmClassifier(V, 3, D, MeanPooling()),
    "attention": lambda: BiLstmClassifier(V, 3, D, AttentionPooling(D, 4)),
    "TextCNN": lambda: TextCnn(V, 3, D, channels=6, widths=(2, 3)),
}
CONTEXTS = {"fixed": FixedContext, "attention": lambda: AdditiveAttention(D, D, 6)}


@pytest.mark.parametrize("make", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_a_text_is_classified_alike_alone_and_among_longer_ones(make):
    model = seeded(make)
    together = model(TEXTS)
    for row, length in enumerate((5, 3, 1)):
        torch.testing.assert_close(model(TEXTS[row : row + 1, :length])[0], together[row])


@pytest.mark.parametrize("make", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_the_order_of_words_counts(make):
    model = seeded(make)
    assert (model(TEXTS[:1]) - model(TEXTS[:1].flip(1))).abs().max() > 1e-4


def test_a_bilstm_equals_pytorchs_on_each_text_alone_and_is_zero_on_padding():
    encoder = seeded(lambda: BiLstm(D, D))
    x, mask = torch.randn(3, 5, D, dtype=torch.float64), TEXTS != 0
    states = encoder(x, mask)
    for row, length in enumerate((5, 3, 1)):
        torch.testing.assert_close(states[row, :length], encoder.lstm(x[row, :length])[0])
        assert (states[row, length:] == 0).all()


def test_the_last_state_is_what_pytorch_returns_as_final():
    encoder = seeded(lambda: BiLstm(D, D))
    x = torch.randn(2, 5, D, dtype=torch.float64)
    mask = torch.ones(2, 5, dtype=torch.bool)
    _, (final, _) = encoder.lstm(x)
    torch.testing.assert_close(LastState()(encoder(x, mask), mask), torch.cat([final[0], final[1]], dim=-1))


def test_textcnn_equals_a_convolution_over_each_text_alone():
    model = seeded(CLASSIFIERS["TextCNN"])
    for row, length in enumerate((5, 3, 1)):
        words = model.embedding.weight[TEXTS[row, :length]].T
        found = [
            F.conv1d(F.pad(words, (w - 1, w - 1)), phrase.weight, phrase.bias).amax(dim=1).relu()
            for phrase, w in zip(model.phrases, (2, 3), strict=True)
        ]
        torch.testing.assert_close(model(TEXTS)[row], model.output(torch.cat(found)))


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_a_translator_never_sees_the_word_it_has_to_write(context):
    model = seeded(lambda: RecurrentTranslator(V, V, D, context()))
    target = torch.tensor([[1, 4, 5, 6], [1, 7, 8, 9], [1, 3, 2, 4]])
    changed = target.clone()
    changed[:, 2:] = 10
    ours, theirs = model(TEXTS, target), model(TEXTS, changed)
    assert torch.equal(ours[:, :2], theirs[:, :2])
    assert (ours[:, 2:] != theirs[:, 2:]).any(-1).all()


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_padding_of_the_source_is_not_heard(context):
    model = seeded(lambda: RecurrentTranslator(V, V, D, context()))
    target = torch.tensor([[1, 7, 8]])
    torch.testing.assert_close(model(TEXTS[1:2], target), model(TEXTS[1:2, :3], target))


def test_a_fixed_context_is_the_same_for_every_question_and_attention_is_not():
    memory, mask = torch.randn(1, 5, D, dtype=torch.float64), torch.ones(1, 1, 5, dtype=torch.bool)
    query = torch.randn(1, 3, D, dtype=torch.float64)
    fixed = FixedContext()(query, memory, mask)
    assert torch.equal(fixed[0, 0], fixed[0, 2])
    assert torch.equal(fixed[:, 0], LastState()(memory, mask[:, 0]))
    heard = seeded(CONTEXTS["attention"])(query, memory, mask)
    assert (heard[0, 0] - heard[0, 2]).abs().max() > 1e-4


def test_an_alignment_gives_the_contexts_the_translator_heard():
    model = seeded(lambda: RecurrentTranslator(V, V, D, AdditiveAttention(D, D, 6)))
    heard = []
    model.context.register_forward_hook(lambda module, inputs, output: heard.append(output))
    target = torch.tensor([[1, 4, 5], [1, 7, 8], [1, 3, 2]])
    model(TEXTS, target)
    weights = model.align(TEXTS, target)
    assert (weights[TEXTS[:, None].expand(-1, 3, -1) == 0] == 0).all()
    torch.testing.assert_close(weights @ model.encode(TEXTS), torch.cat(heard[:3], dim=1))


def test_a_translator_decodes_as_any_other_model_does():
    model = seeded(lambda: RecurrentTranslator(V, V, D, FixedContext()))
    written = greedy_decode(model, TEXTS, start=1, end=2, max_length=4)
    first = model(TEXTS, torch.ones(3, 1, dtype=torch.int64))[:, -1, 1:].argmax(-1) + 1
    assert torch.equal(written[:, 0], first)


@pytest.mark.parametrize("make", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_dropout_acts_only_in_training(make):
    torch.manual_seed(0)
    model = make()
    model.dropout = nn.Dropout(0.5)
    assert torch.equal(model.eval()(TEXTS), model(TEXTS))
    assert not torch.equal(model.train()(TEXTS), model(TEXTS))
