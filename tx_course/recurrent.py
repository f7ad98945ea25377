"""What attention replaced (level 1): recurrent networks that classify a text or translate it, and TextCNN.

Axes: b batch, k positions of the text (s of a source, t of a target), d features. Texts are tokens (b, k),
``pad`` filling up after the words; masks are boolean, True meaning a real word, and every text has one.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class BiLstm(nn.Module):
    """Read a text from both ends, so that each position has heard all that comes before it and after it.

    ``d_model`` is shared by the two directions, half each. Source: Schuster & Paliwal 1997; Hochreiter &
    Schmidhuber 1997.

    >>> BiLstm(d_input=3, d_model=8)(torch.zeros(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, d_input: int, d_model: int):
        super().__init__()
        self.lstm = nn.LSTM(d_input, d_model // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the states (b, k, d_model) after reading ``x`` (b, k, d_input) where ``mask`` (b, k) allows.

        Padding is not read: the way back starts at the last real word. States of padding are 0.
        """
        lengths = mask.sum(dim=1).cpu()
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.size(1))
        return states


class LastState(nn.Module):
    """Keep what each direction has when it is through: the last state forwards, the first one backwards.

    >>> states = torch.tensor([[[1.0, 9.0], [2.0, 8.0], [0.0, 0.0]]])
    >>> LastState()(states, torch.tensor([[True, True, False]]))
    tensor([[2., 9.]])
    """

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (b, d) from the states ``x`` (b, k, d) of a ``BiLstm``, forwards half first."""
        last = mask.sum(dim=1) - 1
        forwards, backwards = x.chunk(2, dim=-1)
        return torch.cat([forwards[torch.arange(len(x)), last], backwards[:, 0]], dim=-1)


class MeanPooling(nn.Module):
    """Average all real positions: attention that weighs every word alike.

    >>> MeanPooling()(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]))
    tensor([[2.]])
    """

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (b, d) from ``x`` (b, k, d) and ``mask`` (b, k)."""
        return (x * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def _small_embedding(vocabulary: int, d_model: int) -> nn.Embedding:
    """Return an embedding that starts near 0, so that the little learned of a rare word outweighs it."""
    embedding = nn.Embedding(vocabulary, d_model)
    nn.init.normal_(embedding.weight, std=0.1)
    return embedding


class BiLstmClassifier(nn.Module):
    """Read a text with a ``BiLstm``, make one vector of its states with ``pooling``, and choose a class.

    ``pooling`` is ``LastState()``, ``MeanPooling()`` or an ``AttentionPooling(d_model, …)``.

    >>> model = BiLstmClassifier(vocabulary=10, classes=2, d_model=8, pooling=MeanPooling())
    >>> model(torch.tensor([[5, 6, 0]])).shape
    torch.Size([1, 2])
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        d_model: int,
        pooling: nn.Module,
        dropout: float = 0.0,
        pad: int = 0,
    ):
        super().__init__()
        self.pad = pad
        self.embedding = _small_embedding(vocabulary, d_model)
        self.encoder = BiLstm(d_model, d_model)
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(d_model, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (b, classes) of ``tokens`` (b, k)."""
        return self.output(self.dropout(self.pooling(*self.encode(tokens))))

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states (b, k, d) and the mask (b, k) that ``pooling`` is given."""
        mask = tokens != self.pad
        return self.encoder(self.dropout(self.embedding(tokens)), mask), mask


class TextCnn(nn.Module):
    """Look for short phrases anywhere: convolutions of several widths, the best match of each (Kim 2014).

    ``widths`` are in words, with ``channels`` phrases of each. Phrases may overhang the ends of a text by
    words of zeros.

    >>> TextCnn(vocabulary=10, classes=2, d_model=8, channels=4)(torch.tensor([[5, 6, 0]])).shape
    torch.Size([1, 2])
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        d_model: int,
        channels: int = 100,
        widths: Sequence[int] = (3, 4, 5),
        dropout: float = 0.0,
        pad: int = 0,
    ):
        super().__init__()
        self.pad = pad
        self.embedding = _small_embedding(vocabulary, d_model)
        self.phrases = nn.ModuleList(nn.Conv1d(d_model, channels, w, padding=w - 1) for w in widths)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(channels * len(widths), classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (b, classes) of ``tokens`` (b, k)."""
        real = (tokens != self.pad)[:, None]  # (b, 1, k)
        x = self.dropout(self.embedding(tokens)).transpose(1, 2) * real  # (b, d, k)
        found = []
        for phrase in self.phrases:
            match = phrase(x)  # (b, channels, k + w − 1): the place is that of the phrase's last word
            place = torch.arange(match.size(2), device=x.device)
            within = place < real.sum(dim=2, keepdim=True) + phrase.kernel_size[0] - 1
            found.append(match.masked_fill(~within, -torch.inf).amax(dim=2).relu())
        return self.output(self.dropout(torch.cat(found, dim=1)))


class FixedContext(nn.Module):
    """Tell a decoder the same one vector whatever it asks: the encoder's last state. This is the bottleneck.

    It is called as ``AdditiveAttention`` is, and takes its place.

    >>> query, states = torch.zeros(1, 1, 2), torch.tensor([[[1.0, 9.0], [2.0, 8.0]]])
    >>> FixedContext()(query, states, torch.tensor([[[True, True]]]))
    tensor([[[2., 9.]]])
    """

    def forward(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """Return (b, q, d), the same for each ``query`` (b, q, m), from states ``key`` (b, k, d)."""
        return LastState()(key, mask[:, 0])[:, None].expand(-1, query.size(1), -1)


class RecurrentTranslator(nn.Module):
    """Read a sentence with a ``BiLstm``, and write another word by word with a GRU that is told a context.

    The ``context`` of each word is ``FixedContext()``, the same for all words (Cho et al. 2014), or an
    ``AdditiveAttention(d_model, d_model, …)`` asked by the state so far (Bahdanau et al. 2015).

    >>> from tx_course.memory import AdditiveAttention
    >>> model = RecurrentTranslator(10, 12, d_model=8, context=AdditiveAttention(8, 8, 8))
    >>> model(torch.tensor([[5, 6, 0]]), torch.tensor([[1, 4]])).shape
    torch.Size([1, 2, 12])
    """

    def __init__(
        self, source_vocabulary: int, target_vocabulary: int, d_model: int, context: nn.Module, pad: int = 0
    ):
        super().__init__()
        self.pad = pad
        self.source_embedding = nn.Embedding(source_vocabulary, d_model)
        self.target_embedding = nn.Embedding(target_vocabulary, d_model)
        self.encoder = BiLstm(d_model, d_model)
        self.start = nn.Linear(d_model, d_model)
        self.context = context
        self.decoder = nn.GRUCell(2 * d_model, d_model)
        self.output = nn.Linear(3 * d_model, target_vocabulary)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return logits (b, t, vocabulary) of the word after each one of ``target`` (b, t), given ``source``
        (b, s)."""
        return self.decode(target, self.encode(source), (source != self.pad)[:, None, None])

    def encode(self, source: Tensor) -> Tensor:
        """Return the states (b, s, d) of the encoder."""
        return self.encoder(self.source_embedding(source), source != self.pad)

    def decode(self, target: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Return logits (b, t, vocabulary) after each word of ``target`` (b, t), given the states ``memory``
        (b, s, d) and which of them are real, ``memory_mask`` (b, 1, 1, s).
        """
        steps = self._write(target, memory, memory_mask[:, 0])
        return torch.stack([self.output(torch.cat(step[1:], dim=-1)) for step in steps], dim=1)

    def align(self, source: Tensor, target: Tensor) -> Tensor:
        """Return what is heard of ``source`` (b, s) after each word of ``target`` (b, t): weights (b, t, s).

        Only an ``AdditiveAttention`` can say.
        """
        memory, mask = self.encode(source), (source != self.pad)[:, None]
        asking = [step[0] for step in self._write(target, memory, mask)]
        return self.context(torch.stack(asking, dim=1), memory, mask, weights=True)[1]

    def _write(self, target: Tensor, memory: Tensor, mask: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yield for each word the states before and after it, the word, and its context, all (b, d)."""
        state = torch.tanh(self.start(LastState()(memory, mask[:, 0])))
        for word in self.target_embedding(target).unbind(dim=1):
            before, context = state, self.context(state[:, None], memory, mask)[:, 0]
            state = self.decoder(torch.cat([word, context], dim=-1), before)
            yield before, state, word, context
