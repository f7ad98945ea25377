# %% [markdown]
# # Level 2 · Attention is a weighted average 看山看石
#
# You stand on a mountain path with a list of heights that other walkers wrote down. Nobody measured the spot
# where you stand. What is its height? You would ask the walkers nearest to you, believe the near ones more,
# and take an average.
#
# That is attention. This level makes each part of it exact: what is asked, how a match is scored, how scores
# become weights, and what is averaged. At the end you will know every symbol of
#
# $$\operatorname{Attention}(Q, K, V) = \operatorname{softmax}\!\left(\frac{QK^\top}{\sqrt{d_k}}\right)V$$
#
# and the reason for the one that is most often explained wrongly, $\sqrt{d_k}$.
#
# **You need:** matrix products, a little Python. **You get:** the function on which every later level stands.
# About 25 minutes. When you have read it, [do the exercises](../exercises/level2_attention).

# %% [markdown]
# ## The sentence of the course, level 2
#
# All nine levels say one sentence and fill in its words differently:
#
# $$y_i = \frac{1}{C_i} \sum_{j \in N(i)} f(q_i, k_j)\, v_j$$
#
# | word | question | this level's answer |
# |---|---|---|
# | $q_i$ | who asks? | any vector: a place, a search, a word |
# | $k_j$, $v_j$ | who answers, and with what? | each memory has a key to be found by and a value to give |
# | $N(i)$ | who may be heard? | everybody, or whoever a mask lets through |
# | $f$ | how is a match scored? | $\exp(\text{score})$; the score is mostly $q \cdot k / \sqrt{d_k}$ |
# | $C_i$ | how do scores become weights? | divide by their sum, so that each row of weights sums to 1 |

# %%
import math
from functools import partial

import matplotlib.pyplot as plt
import torch
from matplotlib.cbook import get_sample_data

from tx_course.attention import (
    SCORES,
    attend,
    attention_weights,
    dot,
    nadaraya_watson,
    scaled_dot,
    softmax,
)
from tx_course.explorer import attention_explorer
from tx_course.measure import peak_bytes, seconds
from tx_course.plots import INK, LINE, MUTED, heatmap, house_style

house_style()
torch.set_printoptions(precision=4, sci_mode=False)
_ = torch.manual_seed(0)

# %% [markdown]
# ## 1. A question on a mountain: attention with nothing to learn
#
# The data are real: one west–east line, 30 km long, through a grid of ground heights around the Jacksboro
# fault in Tennessee. (The grid comes with matplotlib.) We keep 100 heights, as if walkers had written down
# those, and hide the other 303.

# %%
grid = get_sample_data("jacksboro_fault_dem.npz")
height = torch.tensor(grid["elevation"][200], dtype=torch.float64)  # metres
degree = 111.32 * math.cos(math.radians(36.6))  # km of a degree of longitude, here
place = torch.arange(len(height), dtype=torch.float64) * grid["dx"].item() * degree
order = torch.randperm(len(height), generator=torch.Generator().manual_seed(0))
known, hidden = order[:100].sort().values, order[100:].sort().values
print(f"{len(known)} known and {len(hidden)} hidden heights")
print(f"between {height.min():.0f} and {height.max():.0f} m")

# %% [markdown]
# A first guess is the plain mean of the known heights. It gives each walker the same weight, wherever you
# stand. Nadaraya and Watson, independently, proposed the better average in 1964
# {cite}`nadaraya1964,watson1964`: let the weight of walker $j$ fall with the distance from you,
#
# $$\hat y(q) = \sum_j \frac{\exp\!\big(-(q - k_j)^2 / 2h^2\big)}{\sum_{j'} \exp\!\big(-(q - k_{j'})^2 / 2h^2\big)}\; v_j .$$
#
# Put this beside the sentence of the course. The query $q$ is where you stand. The keys $k_j$ are where the
# walkers stood, the values $v_j$ what they wrote down, $f$ the bell curve, and $C$ the sum below. Nothing
# is learned. One number, the **bandwidth** $h$, says what "near" means.
#
# How do we choose $h$ without looking at the hidden heights? Hide one known height, guess it from the other
# 99, and repeat for each. This is called leave-one-out.


# %%
def leave_one_out(bandwidth):
    errors = []
    for i in range(len(known)):
        others = known[torch.arange(len(known)) != i]
        here, truth = place[known[i : i + 1]], height[known[i]]
        guess = nadaraya_watson(here, place[others], height[others], bandwidth)
        errors.append(guess - truth)
    return torch.cat(errors).square().mean().sqrt().item()


bandwidths = torch.logspace(-1.5, 1, 26, dtype=torch.float64).tolist()  # km
left_out = [leave_one_out(h) for h in bandwidths]
best = bandwidths[left_out.index(min(left_out))]
print(f"best bandwidth {best:.2f} km, leave-one-out error {min(left_out):.1f} m")


# %%
def error(guess):
    return (guess - height[hidden]).square().mean().sqrt().item()


def guess(bandwidth, where=hidden):
    return nadaraya_watson(place[where], place[known], height[known], bandwidth)


print(f"plain mean          {error(height[known].mean()):6.1f} m")
print(f"bandwidth {best:.2f} km   {error(guess(best)):6.1f} m")
print(f"bandwidth 2.00 km   {error(guess(2.0)):6.1f} m")

# %% mystnb={"image": {"alt": "A height profile of 30 km. Dots mark 100 known heights. The curve with the bandwidth chosen by leave-one-out follows ridges and valleys; the curve with a bandwidth of 2 km is a smooth hill that misses them; the plain mean is a flat line."}}
everywhere = torch.arange(len(height))
figure, axes = plt.subplots()
axes.fill_between(place, 250, height, color=LINE, label="true height")
near, far = guess(best, everywhere), guess(2.0, everywhere)
axes.plot(place, near, marker="", label=f"bandwidth {best:.2f} km")
axes.plot(place, far, marker="", linestyle="--", label="bandwidth 2 km")
axes.axhline(height[known].mean(), color=MUTED, linestyle=":", label="plain mean")
axes.plot(place[known], height[known], "o", color=INK, markersize=3, label="known")
axes.set(xlabel="place on the path (km)", ylabel="height (m)", ylim=(250, 1200))
_ = axes.legend(ncols=3, loc="upper left", fontsize=9)

# %% [markdown]
# The weighted average is about four times better than the plain mean, and nothing but the weights has
# changed. (The error on the hidden heights is larger than leave-one-out promised. Both are estimates, and
# the bandwidth was chosen to make one of them small.)
#
# Now look at the weights themselves. `attention_weights` takes queries, keys and a score, here the exponent
# of the bell curve, and returns a row for each query. Below, each row is one place that asks; each column
# is one known height that may answer; a row sums to 1.

# %% mystnb={"image": {"alt": "Two heat maps of attention weights: 12 places along the path ask, 100 known places answer. With a bandwidth of 0.16 km each row has one narrow dark band on the diagonal. With 2 km each row is a wide pale band."}}
asks = place[:: len(place) // 11]
ticks = [f"{p:.0f}" for p in asks], [i if i % 20 == 0 else "" for i in range(100)]
figure, pair = plt.subplots(1, 2, figsize=(7.2, 3.2), sharey=True)
for axes, h in zip(pair, (best, 2.0), strict=True):
    by_distance = lambda q, k, h=h: -((q - k.T) ** 2) / (2 * h**2)
    w = attention_weights(asks[:, None], place[known][:, None], score=by_distance)
    heatmap(w, *ticks, axes=axes, digits=None, top=w.max().item())
    axes.set(ylabel="a place asks (km)", xlabel="known height, west to east")
    axes.set_title(f"bandwidth {h:.2f} km")
    axes.label_outer()
    print(f"{h:.2f} km: median of the strongest weights {w.amax(1).median():.2f}")

# %% [markdown]
# **What surprised us.** In the formula above, put a small bandwidth. Each bell curve is then so narrow that,
# in floating-point numbers, *every* weight can underflow to 0, and the formula says 0 / 0. The library's
# version does not. It computes the same average as a *softmax*, which section 3 explains, and gives the
# nearest walker's height. And see the error: nobody here measured
# wrongly, so the nearest walker alone does almost as well as the best average.

# %%
tiny = 0.005  # km: five metres
bell = torch.exp(-((place[hidden, None] - place[known]) ** 2) / (2 * tiny**2))
textbook = (bell @ height[known]) / bell.sum(1)
lost, kept = textbook.isnan().double().mean(), guess(tiny).isnan().double().mean()
print(f"textbook formula: {lost:.0%} of the answers are not a number")
print(f"through softmax:  {kept:.0%}, and the error is {error(guess(tiny)):.1f} m")

# %% [markdown]
# ## 2. Queries, keys and values
#
# In a Python dictionary a query either equals a key or finds nothing. Attention is a dictionary that answers
# anyway: *every* key matches a little, and you get a blend of the values. So three things must be told apart.
#
# | | query: what you want | key: what it is found by | value: what you get |
# |---|---|---|---|
# | the mountain | where you stand | where a walker stood | the height written down |
# | a video search | the words you type | the words of each title | the videos |
# | a shop | what you looked at | the features of each thing on sale | what is recommended |
#
# Key and value are different on purpose. You find a video by its title, but you do not want to watch a title.
#
# Here is the shop. Each thing has features *warm, waterproof, light*, and we looked at a light rain jacket.

# %%
things = ["wool coat", "umbrella", "rain jacket", "sandals"]
# warm, waterproof, light
keys = torch.tensor([[3.0, 1, 0], [0, 3, 2], [1, 3, 2], [0, 0, 3]])
prices = torch.tensor([[140.0], [20], [90], [35]])
looked_at = torch.tensor([[1.0, 3, 2]])
answer, weights = attend(looked_at, keys, prices, weights=True)
for thing, w in zip(things, weights[0], strict=True):
    print(f"{thing:12} {w:.3f}")
print(f"the average price of what matches: {answer.item():.0f}")

# %% [markdown]
# **Where do Q, K and V come from?** On the mountain and in the shop they were given. In a network they are
# *hidden features*: each word, pixel or node is a vector $x$, and three matrices read three things off it,
#
# $$Q = XW_q, \qquad K = XW_k, \qquad V = XW_v .$$
#
# What I ask for, what I can be found by, and what I give: three views of the same vector. Training finds
# the three matrices. From level 3 on we train them; on this level we set them by hand, so that you can
# check each number.

# %% [markdown]
# ## 3. Three stages: score, normalise, average
#
# Every attention in this course has the same three stages. Let us do them one at a time.
#
# ### Stage 1: score
#
# A **score** is one number for each pair of query and key, large when they match. Several formulas are in
# use:
#
# | name | score of $q$ and $k$ | learned |
# |---|---|---|
# | dot {cite}`luong2015` | $q \cdot k$ | nothing |
# | general {cite}`luong2015` | $q^\top W k$ | $W$ |
# | concat {cite}`luong2015` | $v^\top \tanh(W[q; k])$ | $W$, $v$ |
# | additive {cite}`bahdanau2015` | $v^\top \tanh(W_q q + W_k k)$ | $W_q$, $W_k$, $v$ |
# | scaled dot {cite}`vaswani2017` | $q \cdot k / \sqrt{d_k}$ | nothing |
#
# With $W = [W_q\; W_k]$, concat and additive are the same formula. The dot product is the cheapest: all
# scores together are one matrix product $QK^\top$, and matrix products are what computers do best.

# %%
q, k = torch.randn(2, 4), torch.randn(3, 4)
w_q, w_k, v = torch.randn(5, 4), torch.randn(5, 4), torch.randn(5)
learned = {
    "general": {"weight": torch.randn(4, 4)},
    "concat": {"weight": torch.cat([w_q, w_k], 1), "readout": v},
    "additive": {"query_weight": w_q, "key_weight": w_k, "readout": v},
}
for name, score in SCORES.items():
    bound = partial(score, **learned.get(name, {}))
    rows = attention_weights(q, k, score=bound).tolist()
    print(f"{name:10}", [[round(w, 2) for w in row] for row in rows])

# %% [markdown]
# **Why the dot product belongs to the family of the mountain.** Multiply out the square in the bell curve:
#
# $$-\frac{\lVert q - k\rVert^2}{2h^2} = \frac{q \cdot k}{h^2} - \frac{\lVert q\rVert^2}{2h^2} - \frac{\lVert k\rVert^2}{2h^2}.$$
#
# The term $\lVert q\rVert^2$ is the same for every key, so it multiplies all of a row's weights by one
# number, and dividing by the sum removes it again. If all keys have the same length, so does the last term.
# What is left is the dot product. With $h^2 = \sqrt{d_k}$ the two are *equal*: scaled dot-product attention
# is Nadaraya and Watson's average of 1964, with learned places to stand.

# %%
queries = torch.randn(2, 16)
unit_keys = torch.nn.functional.normalize(torch.randn(5, 16), dim=-1)
bell_curve = lambda q, k: -(torch.cdist(q, k) ** 2) / (2 * math.sqrt(16))
from_distance = attention_weights(queries, unit_keys, score=bell_curve)
from_dot = attention_weights(queries, unit_keys, score=scaled_dot)
print("same weights:", torch.allclose(from_distance, from_dot, atol=1e-6))

# %% [markdown]
# **What surprised us.** The $\tanh$ in the concat score looks like a detail. Take it away, and
#
# $$v^\top W[q; k] = a \cdot q + b \cdot k .$$
#
# The part with the query is the same for every key. It cancels, like $\lVert q\rVert^2$ above. Every query
# then gets the *same* weights: it asks, and nobody listens to the question.

# %%
a, b = v @ w_q, v @ w_k
no_tanh = lambda q, k: (q @ a)[:, None] + (k @ b)[None, :]
print(attention_weights(q, k, score=no_tanh))

# %% [markdown]
# ### Stage 2: normalise
#
# Weights should be positive and sum to 1. **Softmax** does both:
#
# $$p_j = \frac{e^{s_j}}{\sum_{j'} e^{s_{j'}}}, \qquad\text{so}\qquad \frac{p_i}{p_j} = e^{s_i - s_j}.$$
#
# The second form is the one to remember: *differences of scores become ratios of weights*. A score larger by
# $\log 2 \approx 0.69$ means twice the weight. We say that scores are measured in **nats**, the unit of natural logarithms.
#
# Two things follow at once. First, adding a constant to all scores changes nothing. This matters in
# practice, because $e^{89}$ is already too large for a 32-bit number. Subtracting the largest score first
# makes the largest exponential $e^0 = 1$.

# %%
scores = torch.tensor([88.0, 89.0, 90.0])
print("as written:       ", scores.exp() / scores.exp().sum())
print("largest subtracted:", softmax(scores))

# %% [markdown]
# Second, we can divide all scores by a **temperature** before the softmax. A low temperature makes
# differences large and the winner takes all; a high one makes all weights alike. The mountain's $h^2$ was a
# temperature.
# **Entropy**, $-\sum_j p_j \log p_j$, measures how spread out the weights are: 0 nats when one weight has everything,
# $\log n$ when all $n$ are equal.

# %% mystnb={"image": {"alt": "Bar charts of softmax weights for the same five scores at temperatures 0.2, 1 and 5. At 0.2 one bar holds nearly all the weight, at 5 the bars are nearly equal."}}
scores = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0])
figure, trio = plt.subplots(1, 3, figsize=(7.2, 2.6), sharey=True)
for axes, temperature in zip(trio, (0.2, 1.0, 5.0), strict=True):
    p = softmax(scores, temperature=temperature)
    axes.bar([f"{s:g}" for s in scores], p)
    axes.set(
        title=f"temperature {temperature:g}", xlabel="score (nats)", ylim=(0, 1)
    )
    entropy = torch.special.entr(p).sum()
    print(f"at {temperature:g}: largest {p.max():.2f}, entropy {entropy:.2f} nats")
_ = trio[0].set_ylabel("weight")

# %% [markdown]
# **How a weight answers when a score moves.** Take the derivative of $p_i$ with respect to $s_j$:
#
# $$\frac{\partial p_i}{\partial s_j} = p_i\,(\delta_{ij} - p_j), \qquad J = \operatorname{diag}(p) - p\,p^\top .$$
#
# ($\delta_{ij}$ is 1 when $i = j$ and 0 otherwise.) Each entry is a product of weights. So when one weight
# is nearly 1 and the others are nearly 0, *every* entry is nearly 0: the softmax is **saturated**, and no
# gradient comes through. Keep this in mind for section 4.

# %% mystnb={"image": {"alt": "Two heat maps of the 5 by 5 Jacobian of softmax. At temperature 1 the diagonal is clearly positive and the largest weights push each other down. At temperature 0.1 nearly all entries are close to zero."}}
figure, pair = plt.subplots(1, 2, figsize=(7.2, 3.0))
for axes, temperature in zip(pair, (1.0, 0.1), strict=True):
    s = scores / temperature
    jacobian = torch.autograd.functional.jacobian(softmax, s)
    by_hand = softmax(s).diag() - torch.outer(softmax(s), softmax(s))
    assert torch.allclose(jacobian, by_hand, atol=1e-6)
    image = axes.imshow(jacobian, cmap="RdBu", vmin=-0.25, vmax=0.25)
    axes.set(title=f"temperature {temperature:g}", xlabel="score j moves")
    axes.grid(visible=False)
    print(f"at {temperature:g}: norm of the Jacobian {jacobian.norm():.3f}")
_ = pair[0].set_ylabel("weight i answers")
_ = figure.colorbar(image, ax=pair, label="∂p_i / ∂s_j")

# %% [markdown]
# ### Stage 3: average
#
# The last stage multiplies the weights with the values: $Y = PV$. Each answer is an average, so it never
# leaves the range of the values: attention can blend what is there, and cannot invent.
#
# ### All three stages, by hand
#
# Now the whole computation on three small vectors, with every number in sight. The rows of $x$ are three
# inputs with four features each.

# %%
x = torch.tensor([[1.0, 0, 1, 0], [0, 2, 0, 2], [1, 1, 1, 1]])
w_query = torch.tensor([[1.0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 1]])
w_key = torch.tensor([[0.0, 0, 1], [1, 1, 0], [0, 1, 0], [1, 1, 0]])
w_value = torch.tensor([[0.0, 2, 0], [0, 3, 0], [1, 0, 3], [1, 1, 0]])
Q, K, V = x @ w_query, x @ w_key, x @ w_value
for name, matrix in {"Q": Q, "K": K, "V": V, "QKᵀ": dot(Q, K)}.items():
    print(f"{name:4}", matrix.int().tolist())

# %%
exact, unscaled = attend(Q, K, V, score=dot, weights=True)
for i, row in enumerate(unscaled.tolist(), start=1):
    print(f"weights of query {i}:", "  ".join(f"{w:.5g}" for w in row))
print("answers:", exact)

# %% [markdown]
# A popular tutorial works this example with the weights rounded to one decimal, and with 0.063 rounded all
# the way down to 0.0 so that the row still sums to 1. That makes it easy to follow on paper. What does it
# cost?

# %%
rounded = torch.tensor([[0.0, 0.5, 0.5], [0, 1, 0], [0, 0.9, 0.1]])
on_paper = rounded @ V
print("answers from rounded weights:")
print(on_paper)
print(
    f"largest difference from the exact answers: {(on_paper - exact).abs().max():.2f}"
)
print(
    f"first weight of query 1: {unscaled[0, 0]:.3f}, on paper {rounded[0, 0]:.1f}"
)

# %% [markdown]
# The first input has vanished from every answer. And the example leaves out the scale. With $d_k = 3$,
# dividing the scores by $\sqrt 3$ evens the weights out:

# %% mystnb={"image": {"alt": "Two heat maps of the 3 by 3 weights of the worked example. Without scale the second row is 0.00, 0.98, 0.02. Divided by the square root of 3 it is 0.00, 0.91, 0.09, and the first row moves from 0.06, 0.47, 0.47 to 0.14, 0.43, 0.43."}}
with_scale, scaled = attend(Q, K, V, weights=True)
figure, pair = plt.subplots(1, 2, figsize=(7.2, 2.7), sharey=True)
for axes, w in zip(pair, (unscaled, scaled), strict=True):
    heatmap(w, ["q1", "q2", "q3"], ["k1", "k2", "k3"], axes=axes, digits=3)
    axes.label_outer()
pair[0].set_title("no scale")
pair[1].set_title("divided by √3")
print("answers with the scale:", with_scale)
print(f"largest change of an answer: {(with_scale - exact).abs().max():.2f}")

# %% [markdown]
# ## 4. Why divide by √d_k?
#
# Suppose the features of a query and a key are independent, with mean 0 and variance 1. One product $q_m
# k_m$ then has mean 0 and variance 1 too. The dot product adds $d_k$ of them, and variances of independent
# numbers add:
#
# $$\operatorname{Var}(q \cdot k) = d_k, \qquad\text{so a typical score has size } \sqrt{d_k}.$$
#
# With 64 features, scores differ by about 8 nats or more, and $e^8$ is nearly 3,000. Dividing by
# $\sqrt{d_k}$ brings the variance back to 1, whatever the width. A small example: two keys score 112 and
# 96, with $d_k = 64$.

# %%
divisors = {"no scale": 1, "√d_k": 8, "d_k": 64, "√d_model": math.sqrt(8 * 64)}
for name, divisor in divisors.items():
    s = torch.tensor([112.0, 96.0]) / divisor
    first, second = softmax(s).tolist()
    print(
        f"{name:9} scores {s[0]:6.2f} {s[1]:6.2f}   weights {first:.2f} {second:.2f}"
    )

# %% [markdown]
# 14 and 12, and weights of 0.88 and 0.12: a clear preference that can still be changed. Without scale the
# second key gets nothing. The last two lines are what some texts divide by. They are too strong: the
# preference fades. (Level 3 splits a vector of width $d_{model} = 512$ into 8 heads of width $d_k = 64$.
# The dot product runs over one head, so its variance is $d_k$, not $d_{model}$.)
#
# Let us measure all three rules. For random queries and 64 random keys we take the variance of the scores,
# the entropy of the weights, and the size of the gradient that reaches a query through the whole attention.


# %%
def measure(d, divisor, seed=0):
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(512, d, generator=g, requires_grad=True)
    k, v = torch.randn(64, d, generator=g), torch.randn(64, generator=g)
    s = dot(q, k) / divisor  # (512, 64)
    p = softmax(s)
    entropy = torch.special.entr(p).sum(-1).mean()
    (gradient,) = torch.autograd.grad((p @ v).sum(), q)
    return s.var().item(), entropy.item(), gradient.norm(dim=-1), p.detach()


# %%
widths = [1, 4, 16, 64, 256, 1024]
rules = {"no scale": lambda d: 1, "√d_k": math.sqrt, "d_k": lambda d: d}
results = {
    name: [measure(d, rule(d)) for d in widths] for name, rule in rules.items()
}

# %% mystnb={"image": {"alt": "Three panels against the key width from 1 to 1024, one line per rule. Score variance: grows to about 1000 without scale, stays at 1 for the square root, falls to 0.001 for dividing by d. Entropy: falls to nearly 0 without scale, stays near 3.7 nats for the square root, rises to the maximum 4.16 for dividing by d. Median gradient: collapses at large widths without scale, stays flat for the square root, falls steadily for dividing by d."}}
figure, trio = plt.subplots(1, 3, figsize=(8.6, 3.2))
for name, rows in results.items():
    variances, entropies, gradients, _ = zip(*rows, strict=True)
    medians = [norms.median() for norms in gradients]
    for axes, series in zip(trio, (variances, entropies, medians), strict=True):
        axes.plot(widths, series, label=name)
    print(f"d_k = 1024, {name:8}: variance {variances[-1]:8.3f}", end=", ")
    print(f"entropy {entropies[-1]:.2f} nats, median gradient {medians[-1]:.4f}")
trio[0].set(title="variance of the scores", yscale="log")
trio[1].set(title="entropy of the weights (nats)", ylim=(0, 4.5))
trio[2].set(title="median gradient norm", yscale="log")
_ = [axes.set(xscale="log", xlabel="d_k") for axes in trio], trio[1].legend()

# %% [markdown]
# Only $\sqrt{d_k}$ keeps all three flat. Without scale the weights collapse onto one key, and the typical
# gradient all but disappears. Dividing by $d_k$ goes wrong on the other side: the entropy reaches its
# maximum $\log 64 = 4.16$, every key is heard alike, and the gradient fades as well.
#
# ### Myth 1: "the scale prevents exploding gradients"
#
# Many texts say so. Take the Jacobian of section 3 and add up the squares of its entries. With $a = \sum_j
# p_j^2$,
#
# $$\lVert J \rVert^2 = a - 2\sum_j p_j^3 + a^2 \;\le\; a - a^2 \;\le\; \tfrac14,
# \qquad\text{because}\qquad \sum_j p_j^3 \ge a^2 .$$
#
# So the weights never change more than half as much as the scores. The softmax cannot make a gradient
# explode, at any width, with any scale. Here are all 512 rows, without scale:

# %%
for d, (_, _, _, p) in zip(widths[2:], results["no scale"][2:], strict=True):
    jacobian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]  # (512, 64, 64)
    norm = jacobian.flatten(1).norm(dim=1)
    print(
        f"d_k {d:5}: norm of J {norm.median():.4f} (median), {norm.max():.4f} (largest)"
    )

# %% [markdown]
# The largest never passes 0.5, and the typical one **vanishes**. That is what the scale prevents, and it is
# what {cite:t}`vaswani2017` suspected: the softmax is pushed "into regions where it has extremely small
# gradients".
#
# **What surprised us.** Here is what reaches the queries, and it is a longer story than the myth or its
# refutation.

# %%
for rule in ("no scale", "√d_k"):
    print(rule)
    for d, (_, _, gradient, _) in zip(widths[2:], results[rule][2:], strict=True):
        print(f"  d_k {d:5}: median {gradient.median():6.4f}", end="")
        print(f"   mean {gradient.mean():5.2f}   largest {gradient.max():5.1f}")

# %% [markdown]
# First, at $d_k = 64$, the width of the heads in the paper, the typical gradient without scale has not
# vanished yet. It is even larger than with the scale. The weights collapse first (look at the entropy in
# the figure), and the gradient follows at larger widths.
#
# Second, the mean hides what the median shows. A few queries stand right between two keys that tie. For
# them the softmax is not saturated, the unscaled keys are long, and the gradient grows with the width. So
# at $d_k = 1024$ most queries get almost nothing and a few get a jolt. That is the grain of truth in the
# myth: not an explosion, but a very uneven push. With the scale, all widths look alike.

# %% [markdown]
# ## 5. Who asks whom: self-attention and cross-attention
#
# Nothing so far asked queries and keys to come from the same place, or to be equally many. With $S$ queries
# and $T$ keys the weights have shape $S \times T$, and each of the $S$ rows sums to 1. The columns need
# not: a key may be popular, or ignored.
#
# * **Cross-attention:** the queries come from one sequence, keys and values from another.
# * **Self-attention:** all three come from the same sequence, $S = T$.

# %%
g = torch.Generator().manual_seed(1)
french = torch.randn(3, 8, generator=g)
english = torch.randn(5, 8, generator=g)
_, cross = attend(french, english, english, weights=True)
_, self_ = attend(english, english, english, weights=True)
print("cross-attention", tuple(cross.shape))
print("self-attention ", tuple(self_.shape))
print("rows sum to   ", cross.sum(1))
print("columns sum to", cross.sum(0))

# %% [markdown]
# ### A map from words to words
#
# Take the sentence "i have a dream". To keep every number readable we give each word four features by hand:
# *person, verb, article, thing* ("dream" is a thing, and a little bit of a verb). Now $W_q$ can be read as
# a table: **which kind of word asks for which**. A verb asks for its person and its thing, an article for
# its thing, and so on.

# %%
words = ["i", "have", "a", "dream"]
person, verb, article, thing = torch.eye(4)
features = torch.stack([person, verb, article, thing + 0.3 * verb])
asks_for = torch.stack(
    [
        4 * verb + 1 * thing,  # a person asks for its verb
        3 * person + 3 * thing,  # a verb asks for its person and its thing
        5 * thing,  # an article asks for its thing
        0.5 * person + 2.5 * verb + 2 * article,  # a thing asks for its verb
    ]
)

# %%
_, word_map = attend(features @ asks_for, features, features, weights=True)
print(word_map)

# %%
attention_explorer(word_map, words, words, title="i have a dream", start=3)

# %% [markdown]
# Nobody wrote a rule about *this* sentence. We wrote what kinds of words ask for, and the map followed.
# Training does the same with features that have no names.
#
# ### Attention does not know order
#
# Shuffle the words. Each word takes its answer along, and nothing else changes. This is **permutation
# equivariance**: attention sees a set, not a sequence.

# %%
shuffle = torch.tensor([3, 1, 2, 0])  # dream have a i
other = features[shuffle]
answers = attend(features @ asks_for, features, features)
shuffled = attend(other @ asks_for, other, other)
print("each word keeps its answer:", torch.allclose(shuffled, answers[shuffle]))

# %% [markdown]
# To attention, "dog bites man" and "man bites dog" are the same. Level 3 repairs this by adding positions
# to the features.

# %% [markdown]
# ## 6. Who may be heard: masks, and two more myths
#
# Often some keys must not be heard: empty slots that pad a batch, or the words that come after this one
# when the task is to guess the next. A **mask** says who may be heard: `True` = may attend. The hidden
# scores become $-\infty$
# *before* the softmax, so that $e^{-\infty} = 0$ exactly, and the rest still sums to 1.
#
# Two short cuts look right and are not. Here they are beside the real thing, on the same scores.

# %%
g = torch.Generator().manual_seed(2)
q, k, v = torch.randn(3, 4, 8, generator=g)
past = torch.ones(4, 4).tril().bool()
right = attention_weights(q, k, mask=past)
times_zero = softmax(scaled_dot(q, k) * past)
zero_after = softmax(scaled_dot(q, k)) * past

# %% mystnb={"image": {"alt": "Three heat maps of 4 by 4 weights with the future hidden. Minus infinity before softmax: upper triangle zero, rows sum to 1. Scores multiplied by 0: upper triangle clearly above zero. Weights zeroed after softmax: upper triangle zero, but the first rows sum to much less than 1."}}
cases = {"−∞ before": right, "scores × 0": times_zero, "zero after": zero_after}
figure, trio = plt.subplots(1, 3, figsize=(8.6, 2.9), sharey=True)
for axes, (name, w) in zip(trio, cases.items(), strict=True):
    heatmap(w, "1234", "1234", axes=axes, title=name)
    axes.label_outer()
    sums = " ".join(f"{row:.2f}" for row in w.sum(1))
    print(f"{name:10} hidden keys get {w[~past].sum():.2f}, rows sum to {sums}")

# %% [markdown]
# ### Myth 2: "multiply the scores by a 0/1 mask before the softmax"
#
# The middle panel. A score of 0 is not "no weight": $e^0 = 1$, as much as any ordinary score. Zero is in the
# middle of the scale, and only $-\infty$ is at its end. The keys we wanted to hide still get a large share.
#
# ### Myth 3: "set the weights to zero after the softmax"
#
# The right panel. The rows no longer sum to 1. You might divide by their new sum, and then it is correct.
# Without that it hides something worse: the future has leaked into the *normaliser*. Change only the last
# key, which the first three queries must not see:

# %%
changed = k.clone()
changed[3] *= 5
moved = (softmax(scaled_dot(q, changed)) * past - zero_after)[:3].abs().max()
safe = (attention_weights(q, changed, mask=past) - right)[:3].abs().max()
print(f"zeroed after: weights of queries 1 to 3 moved by up to {moved:.2f}")
print(f"−∞ before:    they moved by {safe:.2f}")

# %% [markdown]
# A model trained that way was allowed to peek at what it should predict.

# %% [markdown]
# ## 7. What it costs
#
# $S$ queries and $T$ keys make $S \times T$ weights. For a text of $n$ words that is $n^2$: twice the text, four times
# the weights. But who needs the weights? Only the averages are used. The three stages can be done block by
# block, keeping a running sum, and the whole matrix is never stored {cite}`rabe2021,dao2022`. PyTorch has
# such a **fused** kernel, and `attend` uses it when nobody asks for the weights. It gives the same numbers;
# level 9 builds it.


# %%
torch.set_num_threads(1)  # so that other programs disturb the clock less


def cost(n):
    q, k, v = torch.randn(3, 1, 1, n, 64)
    explicit, fused = lambda: attend(q, k, v, weights=True), lambda: attend(q, k, v)
    assert torch.allclose(explicit()[0], fused(), atol=1e-5)  # the same numbers
    runs = {"explicit": explicit, "fused": fused}
    return {
        name: (1000 * seconds(f), peak_bytes(f) / 2**20) for name, f in runs.items()
    }


lengths = [256, 512, 1024, 2048, 4096]
costs = [cost(n) for n in lengths]
print("fused is faster at 4096:", costs[-1]["fused"][0] < costs[-1]["explicit"][0])

# %% mystnb={"image": {"alt": "Two panels against length from 256 to 4096. Time: both lines rise about fourfold per doubling, and the explicit path is slower at long lengths. Memory: the explicit path rises fourfold per doubling to more than a hundred megabytes, the fused path twofold to about one."}}
figure, pair = plt.subplots(1, 2, figsize=(7.6, 3.2))
for path in ("explicit", "fused"):
    milliseconds, mebibytes = zip(*[cost[path] for cost in costs], strict=True)
    pair[0].plot(lengths, milliseconds, label=path)
    pair[1].plot(lengths, mebibytes, label=path)
    growth = mebibytes[-1] / mebibytes[-2]
    print(f"{path:8} at 4096: {mebibytes[-1]:.0f} MiB, per doubling × {growth:.0f}")
for axes, name in zip(pair, ("time (ms)", "memory of tensors (MiB)"), strict=True):
    axes.set(xscale="log", yscale="log", xticks=lengths, xticklabels=lengths)
    axes.set(xlabel="tokens", title=name)
    axes.minorticks_off()
_ = pair[1].legend()

# %% [markdown]
# **What surprised us.** The fused path still does all $n^2$ scores: its time grows fourfold too. It is faster mainly
# because it does not write them to memory and read them back.

# %% [markdown]
# ## Check yourself
#
# **1.** Two keys have scores 3 and 1. How many times more weight does the first get? And after adding 100 to both?
#
# :::{admonition} Answer
# :class: dropdown
# $e^{3-1} = e^2 \approx 7.4$ times. Adding 100 changes nothing: only the difference counts.
# :::
#
# **2.** There are 3 queries and 5 keys of width 8, and values of width 2. What shape are the weights, and what shape is the answer?
# Along which axis do the weights sum to 1?
#
# :::{admonition} Answer
# :class: dropdown
# Weights $3 \times 5$, answer $3 \times 2$. Each row, over the 5 keys, sums to 1.
# :::
#
# **3.** A friend divides by $d_k$ "to be safe". What goes wrong as the width grows?
#
# :::{admonition} Answer
# :class: dropdown
# The variance of the scores becomes $1/d_k$. All weights come out nearly equal, attention turns into the
# plain mean, and the gradient that reaches the queries fades.
# :::
#
# **4.** Every key is the same vector. What does attention return, whatever the query?
#
# :::{admonition} Answer
# :class: dropdown
# The plain mean of the values: equal keys have equal scores, so each weight is $1/T$.
# :::
#
# **5.** You shuffle the keys and the values in the same way, and leave the queries alone. What happens to the answer? And if you
# shuffle only the keys?
#
# :::{admonition} Answer
# :class: dropdown
# Nothing: a sum does not depend on its order. Shuffling only the keys hands each key somebody else's value,
# and the answer changes.
# :::

# %% [markdown]
# ## Where this came from
#
# The weighted average by nearness is from {cite:t}`nadaraya1964` and {cite:t}`watson1964`. Fifty years
# later {cite:t}`graves2014` read a network's memory by a softmax over similarities, with a learned
# sharpness: a temperature. {cite:t}`weston2015` and {cite:t}`sukhbaatar2015` let a question read a memory
# of sentences. {cite:t}`bahdanau2015` let each word of a translation ask the source sentence, with the
# additive score; {cite:t}`luong2015` compared dot, general and concat. {cite:t}`vaswani2017` added the
# scale, and built a whole model out of the result. The fused kernels follow the ideas of
# {cite:t}`milakov2018`, {cite:t}`rabe2021` and {cite:t}`dao2022`.
#
# ## Where it goes next
#
# You have one head, no positions, and matrices set by hand. Level 3 takes many heads side by side, tells
# each word where it stands, hides the future with the mask you have just seen, and learns all the matrices
# from data. Nothing in this level's formula will change.
#
# First, make it yours: [the exercises of level 2](../exercises/level2_attention) build it piece by piece.
