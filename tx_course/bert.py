"""Attention at scale (level 4): one stack of encoder layers, and who may be heard makes it a BERT or a GPT.

Axes: b batch, q positions, m features of the model, v vocabulary. Tokens are (b, q) integers. What they learn
from is in ``pretraining.py``; real weights come from ``pretrained.py``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.multi_head import causal_mask, padding_mask
from tx_course.transformer import EncoderLayer, PreNorm


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT: the paper's base model unless said otherwise (Devlin et al. 2019).

    ``vocabulary`` counts tokens, ``max_length`` positions, ``segments`` the sentences of an input; ``pad`` is
    the token that fills up short inputs.

    >>> BertConfig().layers
    12
    """

    vocabulary: int = 30522
    d_model: int = 768
    heads: int = 12
    layers: int = 12
    d_hidden: int = 3072
    max_length: int = 512
    segments: int = 2
    dropout: float = 0.1
    pad: int = 0

    @classmethod
    def small(cls, vocabulary: int) -> "BertConfig":
        """Return the course's size: two layers of 64 features."""
        return cls(vocabulary, d_model=64, heads=4, layers=2, d_hidden=256, max_length=64, dropout=0.0)


EPS = 1e-12  # BERT's LayerNorm, far from PyTorch's 1e-5: the difference shows in the fourth digit of a logit


class BertEmbeddings(nn.Module):
    """Add up what a token is, where it stands and which sentence it belongs to, then normalise.

    >>> BertEmbeddings(BertConfig.small(10))(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 64])
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.word = nn.Embedding(config.vocabulary, config.d_model)
        self.position = nn.Embedding(config.max_length, config.d_model)
        self.segment = nn.Embedding(config.segments, config.d_model)
        self.norm = nn.LayerNorm(config.d_model, EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, segments: Tensor | None = None) -> Tensor:
        """Return (b, q, m) from ``tokens`` (b, q); ``segments`` (b, q) are all 0 unless given."""
        segments = torch.zeros_like(tokens) if segments is None else segments
        position = torch.arange(tokens.size(1), device=tokens.device)
        return self.dropout(self.norm(self.word(tokens) + self.position(position) + self.segment(segments)))


class Bert(nn.Module):
    """Encoder layers in which every position hears every other (Devlin et al. 2019).

    >>> Bert(BertConfig.small(10))(torch.tensor([[1, 2, 0]])).shape
    torch.Size([1, 3, 64])
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.layers = nn.ModuleList(
            EncoderLayer(
                config.d_model, config.heads, config.d_hidden, config.dropout, activation=nn.GELU(), eps=EPS
            )
            for _ in range(config.layers)
        )
        self.pooler = nn.Sequential(nn.Linear(config.d_model, config.d_model), nn.Tanh())
        self.apply(_small_normal_start)

    def forward(self, tokens: Tensor, segments: Tensor | None = None) -> Tensor:
        """Return the last layer's features (b, q, m) of ``tokens`` (b, q); padding is not heard."""
        mask = padding_mask(tokens, self.config.pad)
        x = self.embeddings(tokens, segments)
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def pool(self, hidden: Tensor) -> Tensor:
        """Return one vector (b, m) for the whole input: the first token's, [CLS], through a tanh layer."""
        return self.pooler(hidden[:, 0])


class BertForPretraining(nn.Module):
    """A BERT that guesses hidden words and whether one sentence follows another (Devlin et al. 2019, 3.1).

    The last layer over words is the word embedding itself plus a bias.

    >>> model = BertForPretraining(BertConfig.small(10))
    >>> words, follows = model(torch.tensor([[1, 2, 3]]))
    >>> words.shape, follows.shape
    (torch.Size([1, 3, 10]), torch.Size([1, 2]))
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.bert = Bert(config)
        self.transform = nn.Sequential(
            nn.Linear(config.d_model, config.d_model), nn.GELU(), nn.LayerNorm(config.d_model, EPS)
        )
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.follows = nn.Linear(config.d_model, 2)
        self.transform.apply(_small_normal_start)
        self.follows.apply(_small_normal_start)

    def forward(self, tokens: Tensor, segments: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logits of the words (b, q, v) and of "follows" and "does not follow" (b, 2)."""
        hidden = self.bert(tokens, segments)
        return self.words(hidden), self.follows(self.bert.pool(hidden))

    def words(self, hidden: Tensor) -> Tensor:
        """Return logits (…, v) of the word at each of some positions, from their features (…, m)."""
        return F.linear(self.transform(hidden), self.bert.embeddings.word.weight, self.bias)


@dataclass(frozen=True)
class GptConfig:
    """Sizes of a GPT: the smallest GPT-2 unless said otherwise (Radford et al. 2019).

    >>> GptConfig().max_length
    1024
    """

    vocabulary: int = 50257
    d_model: int = 768
    heads: int = 12
    layers: int = 12
    d_hidden: int = 3072
    max_length: int = 1024
    dropout: float = 0.1

    @classmethod
    def small(cls, vocabulary: int) -> "GptConfig":
        """Return the course's size: two layers of 64 features."""
        return cls(vocabulary, d_model=64, heads=4, layers=2, d_hidden=256, max_length=64, dropout=0.0)


class Gpt(nn.Module):
    """Encoder layers in which each position hears the past only, so each may guess the next token.

    Pre-norm, the tanh form of GELU, and the embedding as the last layer, as GPT-2 (Radford et al. 2019).
    Padding needs no mask when it stands at the end: no real token hears what comes after it.

    >>> Gpt(GptConfig.small(10))(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 10])
    """

    def __init__(self, config: GptConfig):
        super().__init__()
        self.config = config
        self.word = nn.Embedding(config.vocabulary, config.d_model)
        self.position = nn.Embedding(config.max_length, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                config.d_model, config.heads, config.d_hidden, config.dropout, PreNorm, nn.GELU("tanh")
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.d_model)
        self.apply(_small_normal_start)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (b, q, v) of the token after each of ``tokens`` (b, q)."""
        return F.linear(self.features(tokens), self.word.weight)

    def features(self, tokens: Tensor) -> Tensor:
        """Return the last layer's features (b, q, m) of ``tokens`` (b, q)."""
        position = torch.arange(tokens.size(1), device=tokens.device)
        mask = causal_mask(tokens.size(1), tokens.device)
        x = self.dropout(self.word(tokens) + self.position(position))  # (b, q, m)
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


class BertClassifier(nn.Module):
    """A BERT with one linear layer over a summary of its features, to be fine-tuned with few labels.

    The summary is the mean over the real tokens: it holds up better than [CLS] where no next-sentence task
    has trained [CLS] (compare with ``bert.pool``).

    >>> BertClassifier(Bert(BertConfig.small(10)), classes=2)(torch.tensor([[1, 2, 0]])).shape
    torch.Size([1, 2])
    """

    def __init__(self, bert: Bert, classes: int):
        super().__init__()
        self.bert = bert
        self.output = nn.Linear(bert.config.d_model, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (b, classes) of ``tokens`` (b, q)."""
        return self.output(masked_mean(self.bert(tokens), tokens != self.bert.config.pad))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean (b, m) of ``x`` (b, q, m) over the positions where ``mask`` (b, q) is True.

    Raises ValueError if a row has no such position.

    >>> masked_mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]])).item()
    2.0
    """
    if not mask.any(dim=1).all():
        raise ValueError("expected at least one position to average in every row, got a row with none")
    return (x * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def _small_normal_start(module: nn.Module) -> None:
    """Draw weights from a normal of standard deviation 0.02 and start biases at 0, as BERT and GPT-2 do."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
