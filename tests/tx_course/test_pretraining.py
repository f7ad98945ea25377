"""Lessons from unlabelled text: the proportions of the paper, and of transformers' collator."""

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import DataCollatorForLanguageModeling

from tx_course.pretraining import IGNORE, mask_tokens, mlm_loss, pretraining_loss, sentence_pairs

VOCABULARY, MASK, SPECIAL = 1000, 4, [0, 1, 2, 3, 4]
PAD, CLS, SEP = 0, 1, 2


def text(rows=2000, length=50):
    tokens = torch.randint(5, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))
    tokens[:, 0], tokens[:, -5], tokens[:, -4:] = CLS, SEP, PAD
    return tokens


def shares(tokens, seen, labels):
    """Chosen among ordinary tokens; then of the chosen: masked, changed to another word, left alone."""
    chosen = labels != IGNORE
    ordinary = ~torch.isin(tokens, torch.tensor(SPECIAL))
    masked = (seen == MASK)[chosen]
    same = (seen == tokens)[chosen]
    return torch.stack(
        [
            chosen.sum() / ordinary.sum(),
            masked.float().mean(),
            (~masked & ~same).float().mean(),
            same.float().mean(),
        ]
    )


def test_fifteen_percent_are_chosen_and_eighty_ten_ten_of_them_hidden_changed_and_kept():
    tokens = text()
    seen, labels = mask_tokens(tokens, MASK, VOCABULARY, SPECIAL, torch.Generator().manual_seed(0))
    expected = torch.tensor([0.15, 0.8, 0.1, 0.1])
    torch.testing.assert_close(shares(tokens, seen, labels), expected, atol=0.01, rtol=0)


def test_the_proportions_are_those_of_transformers_collator():
    words = {f"[{name}]": i for i, name in enumerate(("PAD", "CLS", "SEP", "UNK", "MASK"))}
    words |= {f"w{i}": i for i in range(5, VOCABULARY)}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="[UNK]")),
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "unk", "mask")},
    )
    tokens = text()
    theirs = DataCollatorForLanguageModeling(tokenizer, seed=0)([{"input_ids": row} for row in tokens])
    ours = mask_tokens(tokens, MASK, VOCABULARY, SPECIAL, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        shares(tokens, *ours), shares(tokens, theirs["input_ids"], theirs["labels"]), atol=0.015, rtol=0
    )


@given(seed=st.integers(0, 1000), rate=st.floats(0, 1))
def test_specials_and_padding_are_never_touched_and_labels_are_the_chosen_tokens(seed, rate):
    tokens = text(rows=4)
    before = tokens.clone()
    seen, labels = mask_tokens(
        tokens, MASK, VOCABULARY, SPECIAL, torch.Generator().manual_seed(seed), rate=rate
    )
    special = torch.isin(tokens, torch.tensor(SPECIAL))
    assert torch.equal(tokens, before)
    assert torch.equal(seen[special], tokens[special])
    assert (labels[special] == IGNORE).all()
    chosen = labels != IGNORE
    assert torch.equal(labels[chosen], tokens[chosen])
    assert torch.equal(seen[~chosen], tokens[~chosen])


def test_the_same_seed_hides_the_same_words():
    draws = [
        mask_tokens(text(), MASK, VOCABULARY, SPECIAL, torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    ]
    assert torch.equal(draws[0][0], draws[1][0])
    assert not torch.equal(draws[0][0], draws[2][0])


def test_half_of_the_pairs_follow_and_the_others_come_from_another_document():
    documents = [[[100 * d + s] for s in range(5, 35)] for d in range(1, 40)]
    pairs = sentence_pairs(documents, CLS, SEP, torch.Generator().manual_seed(0))
    assert len(pairs) == 39 * 29
    assert sum(strange for *_, strange in pairs) / len(pairs) == pytest.approx(0.5, abs=0.05)
    for (cls, first, sep, second, end), segments, strange in pairs:
        assert (cls, sep, end) == (CLS, SEP, SEP)
        assert segments == [0, 0, 0, 1, 1]
        assert (second == first + 1) if not strange else (second // 100 != first // 100)
    others = {tokens[3] // 100 for tokens, _, strange in pairs if strange and tokens[1] // 100 == 7}
    assert len(others) > 5


def test_segments_tell_the_two_sentences_apart_whatever_their_lengths():
    documents = [[[10, 11, 12], [13], [14, 15]], [[20, 21]]]
    for tokens, segments, _ in sentence_pairs(documents, CLS, SEP, torch.Generator().manual_seed(0)):
        first_end = tokens.index(SEP)
        assert len(segments) == len(tokens)
        assert segments == [0] * (first_end + 1) + [1] * (len(tokens) - first_end - 1)


@pytest.mark.parametrize("documents", [[[[5], [6]]], [[[5], [6]], []]], ids=["one", "an empty one"])
def test_pairs_need_two_documents_with_sentences(documents):
    with pytest.raises(ValueError, match="two or more documents"):
        sentence_pairs(documents, CLS, SEP, torch.Generator())


def test_only_hidden_words_count_in_the_loss():
    logits = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    labels = torch.tensor([[IGNORE, 3, IGNORE, IGNORE, 0], [IGNORE] * 5])
    loss = mlm_loss(logits, labels)
    by_hand = -(logits.log_softmax(-1)[0, 1, 3] + logits.log_softmax(-1)[0, 4, 0]) / 2
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    assert (logits.grad[labels == IGNORE] == 0).all()


def test_label_zero_of_the_next_sentence_counts():
    words, labels = torch.zeros(2, 1, 4), torch.tensor([[1], [2]])
    follows = torch.tensor([[5.0, 0.0], [0.0, 0.0]])
    right = pretraining_loss(words, follows, labels, torch.tensor([0, 0]))
    wrong = pretraining_loss(words, follows, labels, torch.tensor([1, 0]))
    assert (wrong - right).item() == pytest.approx(2.5)


def test_a_loss_with_nothing_to_guess_is_refused():
    with pytest.raises(ValueError, match="only IGNORE"):
        mlm_loss(torch.zeros(1, 2, 4), torch.full((1, 2), IGNORE))
