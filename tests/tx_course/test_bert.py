"""BERT and GPT: equal to transformers' models in every number, and what their masks promise."""

import pytest
import torch
import transformers

from tests.tx_course.parity import assert_same, close, draw, gpu, randomise, renamed
from tx_course.bert import (
    Bert,
    BertClassifier,
    BertConfig,
    BertForPretraining,
    Gpt,
    GptConfig,
    masked_mean,
)
from tx_course.pretrained import our_weights
from tx_course.pretraining import IGNORE, pretraining_loss

BERT = BertConfig(vocabulary=23, d_model=12, heads=3, layers=2, d_hidden=20, max_length=9, dropout=0.0)
GPT = GptConfig(vocabulary=23, d_model=12, heads=3, layers=2, d_hidden=20, max_length=9, dropout=0.0)
TOKENS = torch.tensor([[1, 5, 6, 2, 7, 8, 2], [1, 9, 2, 10, 2, 0, 0]])
SEGMENTS = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0]])
REAL = TOKENS != 0
HIDDEN = (torch.rand(TOKENS.shape, generator=torch.Generator().manual_seed(0)) < 0.5) & REAL
LABELS = torch.where(HIDDEN, TOKENS, IGNORE)
STRANGE = torch.tensor([0, 1])


def their_config():
    return transformers.BertConfig(
        vocab_size=23,
        hidden_size=12,
        num_attention_heads=3,
        num_hidden_layers=2,
        intermediate_size=20,
        max_position_embeddings=9,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


BERT_NAMES = [
    ("embeddings.word", "embeddings.word_embeddings"),
    ("embeddings.position", "embeddings.position_embeddings"),
    ("embeddings.segment", "embeddings.token_type_embeddings"),
    ("embeddings.norm", "embeddings.LayerNorm"),
    ("layers.", "encoder.layer."),
    ("attention.output", "attention.output.dense"),
    ("attention.query", "attention.self.query"),
    ("attention.key", "attention.self.key"),
    ("attention.value", "attention.self.value"),
    ("attention_residual.norm", "attention.output.LayerNorm"),
    ("feed_forward.0", "intermediate.dense"),
    ("feed_forward.2", "output.dense"),
    ("feed_forward_residual.norm", "output.LayerNorm"),
    ("pooler.0", "pooler.dense"),
]
HEAD_NAMES = [
    ("transform.0", "cls.predictions.transform.dense"),
    ("transform.2", "cls.predictions.transform.LayerNorm"),
    ("follows", "cls.seq_relationship"),
]


def pretraining_names(weights):
    weights = renamed(weights, [*BERT_NAMES, *HEAD_NAMES])
    weights["cls.predictions.bias"] = weights["cls.predictions.decoder.bias"] = weights.pop("bias")
    weights["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
    return weights


def test_bert_with_its_heads_is_transformers():
    def ours(model):
        words, follows = model(TOKENS, SEGMENTS)
        return words[
            REAL
        ], follows  # what is said of padding means nothing, and they train no embedding by it

    def theirs(model):
        out = model(TOKENS, attention_mask=REAL, token_type_ids=SEGMENTS)
        return out.prediction_logits[REAL], out.seq_relationship_logits

    assert_same(
        BertForPretraining(BERT),
        transformers.BertForPreTraining(their_config()),
        pretraining_names,
        ours,
        theirs,
    )


def test_the_pretraining_loss_is_transformers():
    def theirs(model):
        return model(
            TOKENS,
            attention_mask=REAL,
            token_type_ids=SEGMENTS,
            labels=LABELS,
            next_sentence_label=STRANGE,
        ).loss

    assert_same(
        BertForPretraining(BERT),
        transformers.BertForPreTraining(their_config()),
        pretraining_names,
        lambda model: pretraining_loss(*model(TOKENS, SEGMENTS), LABELS, STRANGE),
        theirs,
    )


def test_segments_are_all_zero_unless_given():
    model = randomise(Bert(BERT))
    assert torch.equal(model(TOKENS), model(TOKENS, torch.zeros_like(TOKENS)))
    assert not torch.allclose(model(TOKENS), model(TOKENS, SEGMENTS))


GPT_NAMES = [
    ("word.", "transformer.wte."),
    ("position.", "transformer.wpe."),
    ("attention.output", "attn.c_proj"),
    ("attention_residual.norm", "ln_1"),
    ("feed_forward_residual.norm", "ln_2"),
    ("feed_forward.0", "mlp.c_fc"),
    ("feed_forward.2", "mlp.c_proj"),
    ("layers.", "transformer.h."),
]


def gpt_names(weights):
    weights = dict(weights)
    weights["transformer.ln_f.weight"] = weights.pop("norm.weight")
    weights["transformer.ln_f.bias"] = weights.pop("norm.bias")
    for i in range(GPT.layers):
        for kind in ("weight", "bias"):
            parts = [weights.pop(f"layers.{i}.attention.{x}.{kind}") for x in ("query", "key", "value")]
            weights[f"layers.{i}.attn.c_attn.{kind}"] = torch.cat(parts)
    weights = renamed(weights, GPT_NAMES)
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    sideways = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # GPT-2 stores these as (in, out)
    return {name: w.T if name.endswith(sideways) else w for name, w in weights.items()}


def test_gpt_is_transformers_gpt2():
    config = transformers.GPT2Config(
        vocab_size=23,
        n_embd=12,
        n_head=3,
        n_layer=2,
        n_inner=20,
        n_positions=9,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    assert_same(
        Gpt(GPT),
        transformers.GPT2LMHeadModel(config),
        gpt_names,
        lambda model: model(TOKENS),
        lambda model: model(TOKENS).logits,
    )


def test_gpt_never_hears_a_later_word_and_bert_does():
    changed = TOKENS.clone()
    changed[:, 4] = 15
    gpt, bert = randomise(Gpt(GPT)), randomise(Bert(BERT))
    assert torch.equal(gpt(TOKENS)[:, :4], gpt(changed)[:, :4])
    assert not torch.allclose(gpt(TOKENS)[:, 4:], gpt(changed)[:, 4:])
    assert (bert(TOKENS) - bert(changed)).abs().amax(-1)[0].min() > 1e-6


@pytest.mark.parametrize("model", [Bert(BERT), Gpt(GPT)], ids=["bert", "gpt"])
def test_words_that_may_not_be_heard_have_a_gradient_of_exactly_zero(model):
    randomise(model)
    word = model.embeddings.word if isinstance(model, Bert) else model.word
    vectors = word(TOKENS).detach().requires_grad_()
    word.forward = lambda tokens: vectors
    (gradient,) = torch.autograd.grad(model(TOKENS)[1, 3].sum(), vectors)
    heard = REAL[1] if isinstance(model, Bert) else torch.arange(7) <= 3
    assert (gradient[1][~heard] == 0).all()
    assert (gradient[1][heard] != 0).all()
    assert (gradient[0] == 0).all()


def test_longer_padding_changes_nothing():
    bert = randomise(Bert(BERT))
    longer = torch.nn.functional.pad(TOKENS, (0, 2))
    torch.testing.assert_close(bert(longer)[:, :7][REAL], bert(TOKENS)[REAL])


def test_the_classifier_averages_real_tokens_only():
    model = randomise(BertClassifier(Bert(BERT), classes=3))
    expected = torch.stack([model.bert(row[row != 0][None]).mean(dim=1)[0] for row in TOKENS])
    close(model(TOKENS), model.output(expected), "logits")


def test_a_row_with_nothing_to_average_is_refused():
    with pytest.raises(ValueError, match="a row with none"):
        masked_mean(draw(2, 3, 4), torch.tensor([[True, True, False], [False, False, False]]))


@pytest.mark.parametrize("build", [lambda: BertForPretraining(BERT), lambda: Gpt(GPT)], ids=["bert", "gpt"])
def test_the_same_seed_builds_the_same_model_and_its_state_goes_round(build):
    def seeded(seed):
        torch.manual_seed(seed)
        return build()

    first, same, other = seeded(0), seeded(0), seeded(1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    other.load_state_dict(first.state_dict())
    with torch.no_grad():
        ours, theirs = first(TOKENS), other(TOKENS)
    assert torch.equal(ours[0], theirs[0])


def test_weights_that_do_not_fit_are_named():
    theirs = transformers.BertModel(their_config()).state_dict()
    bert = Bert(BERT)
    bert.load_state_dict(our_weights(theirs, bert))
    theirs["extra"] = theirs.pop("pooler.dense.bias")
    with pytest.raises(ValueError, match=r"missing: pooler.dense.bias; left over: extra"):
        our_weights(theirs, bert)


@gpu
@pytest.mark.parametrize("build", [lambda: Bert(BERT), lambda: Gpt(GPT)], ids=["bert", "gpt"])
def test_the_gpu_gives_the_same_numbers(build):
    model = randomise(build())
    expected = model(TOKENS)
    torch.testing.assert_close(model.cuda()(TOKENS.cuda()).cpu(), expected, atol=1e-10, rtol=1e-10)
