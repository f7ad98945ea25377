"""Memory networks and additive attention: equal to NumPy by hand, deaf to padding, and aware of order."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tx_course.attention import additive, attend
from tx_course.memory import (
    AdditiveAttention,
    AttentionPooling,
    MemoryNetwork,
    MemoryNetworkConfig,
    encode_lines,
    position_encoding,
)

V, D, LINES, HOPS = 11, 6, 9, 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(hops=HOPS, seed=0):
    torch.manual_seed(seed)
    model = MemoryNetwork(MemoryNetworkConfig(V, d_model=D, lines=LINES, hops=hops)).double()
    for parameter in model.parameters():
        parameter.data.mul_(8)  # far from the small first weights, so that the softmax is far from even
    return model


def story(lines=7, words=5, seed=1):
    """Two stories of different lengths, of lines of different lengths, and their questions."""
    tokens = torch.randint(1, V, (2, lines, words), generator=generator(seed))
    tokens[0, 2, 3:] = tokens[1, 4, 2:] = 0
    tokens[1, 5:] = 0
    return tokens, torch.randint(1, V, (2, 4), generator=generator(seed + 1))


def sentence_by_hand(tokens, embedding):
    words = [token for token in tokens if token]
    total = np.zeros(embedding.shape[1])
    for j, token in enumerate(words, start=1):
        for k in range(1, len(total) + 1):
            weight = (1 - j / len(words)) - (k / len(total)) * (1 - 2 * j / len(words))
            total[k - 1] += weight * embedding[token, k - 1]
    return total


def answer_by_hand(model, lines, question, linear):
    """Sukhbaatar et al. 2015, one story at a time, in NumPy: logits, and the weights of each hop."""
    embeddings, temporal = (p.detach().numpy() for p in (model.embeddings, model.temporal))
    lines, question = lines.numpy(), question.numpy()
    u, every = sentence_by_hand(question, embeddings[0]), []
    for hop in range(HOPS):
        p = np.zeros(len(lines))
        real = [i for i in range(len(lines)) if lines[i].any()]
        for i in real:
            p[i] = u @ (sentence_by_hand(lines[i], embeddings[hop]) + temporal[hop, i])
        if not linear:
            p[real] = np.exp(p[real] - p[real].max()) / np.exp(p[real] - p[real].max()).sum()
        heard = [
            p[i] * (sentence_by_hand(lines[i], embeddings[hop + 1]) + temporal[hop + 1, i]) for i in real
        ]
        u = u + np.sum(heard, axis=0)
        every.append(p)
    return embeddings[HOPS] @ u, np.array(every)


@pytest.mark.parametrize("linear", [False, True], ids=["softmax", "linear start"])
def test_a_memory_network_equals_the_paper_by_hand(linear):
    model = network()
    lines, question = story()
    logits, weights = model(lines, question, linear=linear, weights=True)
    for row in range(2):
        expected, looked = answer_by_hand(model, lines[row], question[row], linear)
        np.testing.assert_allclose(logits[row].detach(), expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(weights[row].detach(), looked, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_adjacent_tying_needs_one_embedding_more_than_hops(hops):
    count = sum(p.numel() for p in network(hops).parameters())
    assert count == (hops + 1) * (V * D + LINES * D)


def test_each_hop_hears_by_the_embedding_with_which_the_next_one_finds():
    lines, question = story()
    model = network(hops=2)
    model.embeddings.data[1] = 0
    model.temporal.data[1] = 0  # the first hop hears nothing, and the second finds every line alike
    _, weights = model(lines, question, weights=True)
    torch.testing.assert_close(weights[0, 1], torch.full((7,), 1 / 7, dtype=torch.float64))


def test_every_hops_weights_sum_to_one_over_the_real_lines():
    lines, question = story()
    _, weights = network()(lines, question, weights=True)
    assert weights.shape == (2, HOPS, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, HOPS, dtype=torch.float64))
    assert (weights[1, :, 5:] == 0).all()


@pytest.mark.parametrize("linear", [False, True], ids=["softmax", "linear start"])
def test_padding_words_and_lines_change_nothing(linear):
    model = network()
    lines, question = story()
    longer = torch.zeros(2, 9, 8, dtype=torch.int64)
    longer[:, :7, :5] = lines
    asked = torch.cat([question, torch.zeros(2, 3, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(
        model(longer, asked, linear=linear), model(lines, question, linear=linear), rtol=1e-12, atol=1e-12
    )


def test_the_embedding_of_padding_is_never_read():
    model = network()
    lines, question = story()
    answers = model(lines, question)[:, 1:]
    model.embeddings.data[:, 0] = 1e6
    assert torch.equal(model(lines, question)[:, 1:], answers)


def test_without_temporal_encoding_the_order_of_lines_does_not_count_and_with_it_does():
    model = network()
    lines, question = story()
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    shuffled = lines[:1, order]
    told, shuffled_told = model(lines[:1], question[:1]), model(shuffled, question[:1])
    assert (told - shuffled_told).abs().max() > 1e-3
    model.temporal.data.zero_()
    logits, weights = model(lines[:1], question[:1], weights=True)
    shuffled_logits, shuffled_weights = model(shuffled, question[:1], weights=True)
    torch.testing.assert_close(logits, shuffled_logits)
    torch.testing.assert_close(weights[..., order], shuffled_weights)


def test_the_order_of_words_in_a_line_counts():
    lines, question = story()
    model = network()
    assert (model(lines, question) - model(lines, question.flip(1))).abs().max() > 1e-3


def test_too_long_a_story_is_an_error():
    with pytest.raises(ValueError, match="at most 9 lines, got 10"):
        network()(torch.ones(1, 10, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.int64))


def test_a_story_without_a_line_is_an_error():
    with pytest.raises(ValueError, match="hides every key"):
        network()(torch.zeros(1, 3, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.int64))


@pytest.mark.parametrize("linear", [False, True], ids=["softmax", "linear start"])
def test_the_gradients_of_a_memory_network_are_right(linear):
    model = network()
    lines, question = story(lines=6, words=3)

    def logits(embeddings, temporal):
        weights = {"embeddings": embeddings, "temporal": temporal}
        return torch.func.functional_call(model, weights, (lines, question), {"linear": linear})

    small = [(p.detach() / 8).requires_grad_() for p in (model.embeddings, model.temporal)]
    assert torch.autograd.gradcheck(logits, small)


def test_a_state_dict_makes_the_same_network():
    lines, question = story()
    model, copy = network(), network(seed=1)
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy(lines, question), model(lines, question))


@given(words=st.integers(1, 6), d_model=st.integers(1, 8), padding=st.integers(0, 3))
def test_position_encoding_slides_from_the_first_features_to_the_last_along_the_line(words, d_model, padding):
    tokens = torch.tensor([1] * words + [0] * padding)
    encoding = position_encoding(tokens, d_model)
    assert (encoding[words:] == 0).all()
    j = torch.arange(1, words + 1, dtype=torch.float64)[:, None] / words
    k = torch.arange(1, d_model + 1, dtype=torch.float64) / d_model
    torch.testing.assert_close(encoding[:words], (1 - j) * (1 - k) + j * k)  # the paper's formula, factored


def test_a_line_is_the_sum_of_its_words_when_each_weighs_the_same():
    embedding = torch.randn(V, 2, generator=generator())
    one_word = encode_lines(torch.tensor([[3]]), embedding)
    torch.testing.assert_close(one_word, embedding[3] * torch.tensor([[0.5, 1.0]]))


def test_additive_attention_is_attend_with_the_additive_score():
    module = AdditiveAttention(3, 4, 5).double()
    query, key = (torch.randn(2, n, d, generator=generator()).double() for n, d in ((6, 3), (7, 4)))
    mask = torch.rand(2, 6, 7, generator=generator()) < 0.7
    mask[..., 0] = True

    def score(query, key):
        return additive(query, key, module.query.weight, module.key.weight, module.readout)

    ours, weights = module(query, key, mask, weights=True)
    expected, expected_weights = attend(query, key, key, mask, score, weights=True)
    assert torch.equal(ours, expected) and torch.equal(weights, expected_weights)
    assert torch.equal(module(query, key, mask), ours)


def test_additive_attention_equals_bahdanaus_formula_by_hand():
    module = AdditiveAttention(3, 4, 5).double()
    query, key = (torch.randn(n, d, generator=generator()).double() for n, d in ((2, 3), (6, 4)))
    w, u, v = (p.detach().numpy() for p in (module.query.weight, module.key.weight, module.readout))
    for i in range(2):
        energy = np.array([v @ np.tanh(w @ query[i].numpy() + u @ key[j].numpy()) for j in range(6)])
        alpha = np.exp(energy) / np.exp(energy).sum()
        np.testing.assert_allclose(module(query, key)[i].detach(), alpha @ key.numpy(), atol=1e-12)


def pooling_and_texts():
    torch.manual_seed(0)
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]
    return AttentionPooling(4, 6).double(), x, mask


def test_attention_pooling_equals_its_formula_by_hand():
    pool, x, mask = pooling_and_texts()
    w, b, u = (p.detach().numpy() for p in (pool.offer.weight, pool.offer.bias, pool.question))
    pooled, weights = pool(x, mask, weights=True)
    for row, length in enumerate((5, 3, 1)):
        real = x[row, :length].numpy()
        energy = np.tanh(real @ w.T + b) @ u
        alpha = np.exp(energy) / np.exp(energy).sum()
        np.testing.assert_allclose(weights[row, :length].detach(), alpha, atol=1e-12)
        np.testing.assert_allclose(pooled[row].detach(), alpha @ real, atol=1e-12)


def test_padding_has_no_influence_and_no_gradient_in_attention_pooling():
    pool, x, mask = pooling_and_texts()
    x.requires_grad_()
    before = pool(x, mask)
    before.sum().backward()
    assert (x.grad[~mask] == 0).all() and (x.grad[mask] != 0).any(-1).all()
    changed = torch.where(mask[..., None], x, 1e3)
    assert torch.equal(pool(changed, mask), before)


def test_attention_pooling_does_not_care_about_order():
    pool, x, _ = pooling_and_texts()
    everyone = torch.ones(3, 5, dtype=torch.bool)
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(pool(x[:, order], everyone), pool(x, everyone))


def test_the_gradients_of_both_attentions_are_right():
    pool, x, mask = pooling_and_texts()
    assert torch.autograd.gradcheck(lambda x: pool(x, mask), x.requires_grad_())
    module = AdditiveAttention(4, 4, 3).double()
    query = x[:, :2].detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda query, x: module(query, x, mask[:, None]), (query, x))
