"""Recording attention changes nothing, misses none, and gives the numbers of an independent BERT."""

import pytest
import torch
from torch import nn
from transformers import BertConfig as TheirBertConfig
from transformers import BertModel

from tx_course.bert import Bert, BertConfig, Gpt, GptConfig
from tx_course.decoding import GroupedQueryAttention
from tx_course.graph import GraphAttention
from tx_course.interpret import record_attention
from tx_course.memory import MemoryNetwork, MemoryNetworkConfig
from tx_course.multi_head import MultiHeadAttention
from tx_course.non_local import NonLocalBlock
from tx_course.swin import Swin, SwinConfig
from tx_course.transformer import Transformer, TransformerConfig
from tx_course.vision import VisionTransformer, VitConfig

TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])

MODELS = {
    "transformer": (Transformer(TransformerConfig.small(10, 12)), (TOKENS, TOKENS[:, :3]), 6),
    "bert": (Bert(BertConfig.small(10)), (TOKENS,), 2),
    "gpt": (Gpt(GptConfig.small(10)), (TOKENS,), 2),
    "vision": (VisionTransformer(VitConfig.small()), (torch.randn(1, 1, 28, 28),), 2),
    "non-local": (NonLocalBlock(channels=4), (torch.randn(2, 4, 5, 6),), 1),
    "swin": (Swin(SwinConfig.small()), (torch.randn(1, 1, 28, 28),), 4),
    "grouped queries": (GroupedQueryAttention(8, 4, 2), (torch.randn(2, 3, 8),), 1),
}


@pytest.mark.parametrize(("model", "inputs", "count"), MODELS.values(), ids=MODELS)
def test_recording_finds_every_attention_and_changes_no_output(model, inputs, count):
    model.eval()
    before = model(*inputs)
    with record_attention(model) as weights:
        during = model(*inputs)
    assert len(weights) == count
    torch.testing.assert_close(during, before, atol=1e-5, rtol=1e-5)  # fused against written out
    for given_weights in weights.values():
        torch.testing.assert_close(given_weights.sum(-1), torch.ones(given_weights.shape[:-1]))
    assert torch.equal(model(*inputs), before)
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_recorded_weights_equal_transformers_berts():
    torch.manual_seed(0)
    ours = Bert(BertConfig(10, 16, 4, 2, d_hidden=24, max_length=8, dropout=0.0)).double().eval()
    with torch.no_grad():
        for weight in ours.parameters():
            weight.normal_(std=0.4)
    c = ours.config
    theirs = BertModel(
        TheirBertConfig(
            vocab_size=c.vocabulary,
            hidden_size=c.d_model,
            num_hidden_layers=c.layers,
            num_attention_heads=c.heads,
            intermediate_size=c.d_hidden,
            max_position_embeddings=c.max_length,
            attn_implementation="eager",
        )
    )
    theirs = theirs.double().eval()
    state = ours.state_dict()
    names = {
        "embeddings.word": "embeddings.word_embeddings",
        "embeddings.position": "embeddings.position_embeddings",
        "embeddings.segment": "embeddings.token_type_embeddings",
        "embeddings.norm": "embeddings.LayerNorm",
        "pooler.0": "pooler.dense",
        "layers": "encoder.layer",
        ".attention.query": ".attention.self.query",
        ".attention.key": ".attention.self.key",
        ".attention.value": ".attention.self.value",
        ".attention.output": ".attention.output.dense",
        ".attention_residual.norm": ".attention.output.LayerNorm",
        "feed_forward.0": "intermediate.dense",
        "feed_forward.2": "output.dense",
        "feed_forward_residual.norm": "output.LayerNorm",
    }
    renamed = {}
    for name, weight in state.items():
        for a, b in names.items():
            name = name.replace(a, b)
        renamed[name] = weight
    theirs.load_state_dict(renamed)
    with record_attention(ours) as weights:
        ours(TOKENS)
    expected = theirs(TOKENS, attention_mask=(TOKENS != 0).long(), output_attentions=True).attentions
    torch.testing.assert_close(list(weights.values()), list(expected), atol=1e-9, rtol=1e-9)


def test_a_memory_networks_hops_are_recorded_too():
    model = MemoryNetwork(MemoryNetworkConfig.small(vocabulary=12))
    lines, question = torch.randint(1, 12, (2, 4, 3)), torch.randint(1, 12, (2, 3))
    with record_attention(model) as weights:
        model(lines, question)
    asked = model(lines, question, weights=True)[1]
    torch.testing.assert_close(weights[""], asked)


def test_a_graphs_edges_are_recorded_too():
    torch.manual_seed(0)
    layer, edges = GraphAttention(d_in=4, d_out=3, heads=2), torch.tensor([[0, 1, 2, 2], [1, 2, 0, 1]])
    x = torch.randn(3, 4)
    with record_attention(nn.ModuleDict({"graph": layer})) as weights:
        heard = layer(x, edges)
    expected = layer(x, edges, weights=True)
    torch.testing.assert_close((heard, weights["graph"]), expected)


def test_recordings_nest_stop_on_errors_and_give_the_caller_what_it_asked_for():
    layer, x = MultiHeadAttention(8, 2), torch.randn(1, 3, 8)
    with record_attention(layer) as outer, record_attention(layer) as inner:
        heard, asked = layer(x, weights=True)
        assert torch.equal(layer(x), heard)
    assert torch.equal(outer[""], inner[""])
    assert torch.equal(inner[""], asked)
    with pytest.raises(ZeroDivisionError), record_attention(layer):
        raise ZeroDivisionError
    assert "forward" not in layer.__dict__


def test_gradients_flow_through_recorded_weights():
    layer = MultiHeadAttention(8, 2)
    with record_attention(layer) as weights:
        out = layer(torch.randn(1, 3, 8))
    assert torch.autograd.grad(out.sum(), weights[""])[0].abs().sum() > 0
