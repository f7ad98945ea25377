"""Looking inside (level 8): what heads of a real BERT do, which of them matter, and whether weights explain.

``python -m tx_course.experiments.interpret`` prints the tables over three seeds. DINO has a file of its own.
"""

import random
import time
from dataclasses import dataclass

import torch
from scipy.stats import kendalltau
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from tx_course.bert import Bert, BertClassifier, masked_mean
from tx_course.data.reviews import load_reviews
from tx_course.interpret import head_importance, prune_heads, record_attention, rollout
from tx_course.pretrained import encode, load_pretrained
from tx_course.train import cosine, fit

LONGEST = 32  # tokens of a sentence that are read

WHO_IS_IT = (
    ("the cat drank the milk because it was", "cat", "thirsty", "milk", "fresh"),
    ("the dog ate the meal because it was", "dog", "hungry", "meal", "delicious"),
    ("the horse left the field because it was", "horse", "scared", "field", "dry"),
    ("the bird chose the tree because it was", "bird", "tired", "tree", "tall"),
    ("the lion crossed the river because it was", "lion", "hungry", "river", "narrow"),
    ("the fox entered the house because it was", "fox", "cold", "house", "empty"),
    ("the wolf followed the road because it was", "wolf", "lost", "road", "straight"),
    ("the bear took the honey because it was", "bear", "hungry", "honey", "sweet"),
    ("the mouse left the cheese because it was", "mouse", "afraid", "cheese", "rotten"),
    ("the rabbit left the forest because it was", "rabbit", "frightened", "forest", "dark"),
    ("the duck avoided the lake because it was", "duck", "ill", "lake", "frozen"),
    ("the cow ate the grass because it was", "cow", "hungry", "grass", "green"),
)
"""A beginning, then each noun that "it" could be with the last word that decides for it."""


@torch.no_grad()
def attention_of(bert: Bert, tokens: Tensor) -> Tensor:
    """Return every layer's weights (layers, b, h, q, k) for ``tokens`` (b, q)."""
    with record_attention(bert) as weights:
        bert(tokens)
    return torch.stack(list(weights.values()))


def head_kinds(bert: Bert, tokenizer: Tokenizer, sentences: int = 60) -> dict[str, Tensor]:
    """Return for each kind of place the mean weight each head gives it, (layers, h).

    Kinds are the token before, the token after, the token itself, [CLS] and [SEP]; queries are the words of
    real sentences about films. "any one token" is what even weights would give.
    """
    total: dict[str, Tensor] = {}
    for text, _ in load_reviews().test[:sentences]:
        weights = attention_of(bert, encode(tokenizer, [text])[:, :LONGEST])[:, 0]  # (layers, h, n, n)
        n = weights.size(-1)
        word = torch.arange(1, n - 1)
        places = {
            "before": word - 1,
            "after": word + 1,
            "itself": word,
            "[CLS]": 0 * word,
            "[SEP]": 0 * word + n - 1,
        }
        found = {kind: weights[:, :, word, place].mean(-1) for kind, place in places.items()}
        found["any one token"] = torch.full_like(found["itself"], 1 / n)
        for kind, share in found.items():
            total[kind] = total.get(kind, 0) + share / sentences
    return total


@dataclass(frozen=True)
class WhoIsIt:
    """The head chosen most often, the mean weight from "it" to the right noun and to the other, and how often
    the right noun gets more."""

    layer: int
    head: int
    right: float
    other: float
    wins: float


def who_is_it(bert: Bert, tokenizer: Tokenizer) -> dict[str, WhoIsIt]:
    """Look for a head that knows what "it" is: judge each sentence by the head that is best on the others.

    "subject" only has sentences where it is the first noun, as most examples in print do; "both" also has
    their twins, where another last word makes it the second. A head that looks for the first noun wins all
    the former and half of the latter.
    """
    right, other = _pronoun_weights(bert, tokenizer)  # each (sentences, 2, layers, h)
    return {"subject": _best_head(right[:, :1], other[:, :1]), "both": _best_head(right, other)}


def _pronoun_weights(bert: Bert, tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Return the weights from "it" to the right and to the other noun, (sentences, 2 ends, layers, h)."""
    result: list[list[Tensor]] = [[], []]
    for beginning, subject, for_subject, thing, for_thing in WHO_IS_IT:
        for noun, others, last in ((subject, thing, for_subject), (thing, subject, for_thing)):
            tokens = tokenizer.encode(f"{beginning} {last}").tokens
            weights = attention_of(bert, encode(tokenizer, [f"{beginning} {last}"]))[:, 0]
            for share, word in zip(result, (noun, others), strict=True):
                share.append(weights[:, :, tokens.index("it"), tokens.index(word)])
    return tuple(torch.stack(share).unflatten(0, (-1, 2)) for share in result)


def _best_head(right: Tensor, other: Tensor) -> WhoIsIt:
    """Judge each sentence by the head whose lead is largest on all the others."""
    lead = (right - other).mean(1).flatten(1)  # (sentences, layers · h)
    chosen = (lead.sum(0) - lead).argmax(dim=1)  # (sentences)
    index = chosen[:, None, None].expand(-1, right.size(1), 1)
    right, other = (x.flatten(2).gather(2, index) for x in (right, other))
    layer, head = divmod(int(chosen.mode().values), 12)
    return WhoIsIt(
        layer, head, right.mean().item(), other.mean().item(), (right > other).float().mean().item()
    )


@dataclass(frozen=True)
class Sentiment:
    """A classifier of sentences about films, and sentences to judge it by: tokens (n, q), labels (n)."""

    model: BertClassifier
    tokens: Tensor
    labels: Tensor
    train_tokens: Tensor
    train_labels: Tensor


def sentiment_model(seed: int = 0, train: int = 800, test: int = 500) -> Sentiment:
    """Put a linear layer on a real BERT and train only that layer, on ``train`` labelled sentences."""
    bert, tokenizer = load_pretrained()
    reviews = load_reviews()
    train_texts, train_labels = zip(*random.Random(seed).sample(reviews.train, train), strict=True)
    test_texts, test_labels = zip(*reviews.test[:test], strict=True)
    tokens, test_tokens = (encode(tokenizer, list(t))[:, :LONGEST] for t in (train_texts, test_texts))
    labels = torch.tensor(train_labels)
    features = summaries(bert, tokens)
    mean, spread = features.mean(0), features.std(0)
    torch.manual_seed(seed)
    model = BertClassifier(bert, classes=2)
    batch = ((features - mean) / spread, labels)
    fit(
        model.output,
        lambda generator: batch,
        lambda layer, batch: F.cross_entropy(layer(batch[0]), batch[1]),
        steps=150,
        learning_rate=1e-2,
        schedule=cosine(),
        weight_decay=1.0,
    )
    with torch.no_grad():  # let the layer do the scaling, so that it can read the features as they come
        model.output.weight /= spread
        model.output.bias -= model.output.weight @ mean
    return Sentiment(model.eval(), test_tokens, torch.tensor(test_labels), tokens, labels)


@torch.no_grad()
def summaries(bert: Bert, tokens: Tensor, size: int = 50) -> Tensor:
    """Return the mean feature of each sentence, (n, m), ``size`` sentences at a time."""
    pieces = []
    for piece in tokens.split(size):
        piece = piece[:, : int((piece != 0).sum(1).max())]
        pieces.append(masked_mean(bert(piece), piece != 0))
    return torch.cat(pieces)


def judge(model: BertClassifier, task: Sentiment) -> Tensor:
    """Return the label (n) that ``model`` gives each test sentence."""
    with torch.no_grad():
        return model.output(summaries(model.bert, task.tokens)).argmax(-1)


def classification_loss(model: BertClassifier, batch: tuple[Tensor, ...]) -> Tensor:
    """Return the mean cross-entropy in nats of a batch (tokens, labels)."""
    return F.cross_entropy(model(batch[0]), batch[1])


@dataclass(frozen=True)
class Pruned:
    """After each count of heads removed: the share of labels right, and the share that did not change."""

    right: list[float]
    unchanged: list[float]


def pruning_curve(
    task: Sentiment, removed: tuple[int, ...] = (24, 48, 66), examples: int = 96, seed: int = 0
) -> dict[str, Pruned]:
    """Remove heads in three orders and judge what is left after each count in ``removed``.

    Importance is measured on ``examples`` training sentences; nothing is trained again. Each layer keeps its
    most important head, or in the order "most important first" its least important, so 66 of 72 heads is the
    most that can go.
    """
    batches = zip(task.train_tokens[:examples].split(32), task.train_labels[:examples].split(32), strict=True)
    importance = head_importance(task.model, classification_loss, batches)
    generator = torch.Generator().manual_seed(seed)
    orders = {
        "least important first": importance,
        "at random": {name: torch.rand(len(x), generator=generator) for name, x in importance.items()},
        "most important first": {name: -x for name, x in importance.items()},
    }
    whole = judge(task.model, task)
    curves = {}
    for order, rank in orders.items():
        labels = torch.stack(
            [judge(prune_heads(task.model, _lowest(rank, count)), task) for count in removed]
        )
        curves[order] = Pruned(
            (labels == task.labels).float().mean(1).tolist(), (labels == whole).float().mean(1).tolist()
        )
    return curves


def _lowest(rank: dict[str, Tensor], count: int) -> dict[str, list[int]]:
    """Return the ``count`` heads with the lowest ``rank``, never all of a layer, by module name."""
    heads = sorted(
        (x.item(), name, head)
        for name, xs in rank.items()
        for head, x in enumerate(xs)
        if head != int(xs.argmax())
    )
    chosen: dict[str, list[int]] = {}
    for _, name, head in heads[:count]:
        chosen.setdefault(name, []).append(head)
    return chosen


def explanations(task: Sentiment, sentences: int = 60) -> dict[str, float]:
    """Ask four times which words mattered, and return how well each answer agrees with leaving words out.

    Leaving out: by how much the logits' difference moves when the word is hidden by [MASK]. The others are
    the last layer's weights, rollout, and the length of the gradient at the word's embedding. Agreement is
    Kendall's τ between orders of words, averaged over sentences: 1 is the same order, 0 is chance.
    """
    total: dict[str, float] = {}
    for tokens in task.tokens[:sentences]:
        tokens = tokens[tokens != 0][None]
        words = slice(1, tokens.size(1) - 1)
        truth = _leaving_out(task.model, tokens)[words]
        answers = {"gradient": _gradient(task.model, tokens)}
        weights = attention_of(task.model.bert, tokens)
        answers["last layer's attention"] = weights[-1, 0].mean((0, 1))  # heads and queries
        answers["rollout"] = rollout(list(weights))[0].mean(0)
        for name, answer in answers.items():
            total[name] = total.get(name, 0.0) + kendalltau(answer[words], truth).statistic / sentences
    return total


def _preference(model: BertClassifier, tokens: Tensor) -> Tensor:
    logits = model(tokens)
    return logits[:, 1] - logits[:, 0]


@torch.no_grad()
def _leaving_out(model: BertClassifier, tokens: Tensor, mask: int = 103) -> Tensor:
    """Return how far hiding each token moves the preference, (q). 103 is [MASK] in BERT's vocabulary."""
    hidden = tokens.repeat(tokens.size(1), 1).fill_diagonal_(mask)
    return (_preference(model, hidden) - _preference(model, tokens)).abs()


def _gradient(model: BertClassifier, tokens: Tensor) -> Tensor:
    """Return the length of the preference's gradient at each token's embedding, (q)."""
    kept = []
    handle = model.bert.embeddings.register_forward_hook(lambda module, args, result: kept.append(result))
    preference = _preference(model, tokens)
    handle.remove()
    return torch.autograd.grad(preference.sum(), kept)[0][0].norm(dim=-1)


def main() -> None:
    """Print every experiment, the trained ones over three seeds."""
    bert, tokenizer = load_pretrained()
    for kind, share in head_kinds(bert, tokenizer).items():
        layer, head = divmod(int(share.argmax()), share.size(1))
        print(f"{kind:14} best head {layer}.{head}: {share.max():.2f}; mean of all heads {share.mean():.2f}")
    for name, found in who_is_it(bert, tokenizer).items():
        print(f"what is it, {name:8} {found}")
    for seed in range(3):
        start = time.perf_counter()
        task = sentiment_model(seed)
        print(f"seed {seed}: all heads {(judge(task.model, task) == task.labels).float().mean():.3f}")
        for order, curve in pruning_curve(task, seed=seed).items():
            right, unchanged = (" ".join(f"{x:.3f}" for x in xs) for xs in (curve.right, curve.unchanged))
            print(f"  {order:24} right {right}  unchanged {unchanged}")
        for name, tau in explanations(task).items():
            print(f"  {name:24} agrees with leaving out: {tau:.2f}")
        print(f"  {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
