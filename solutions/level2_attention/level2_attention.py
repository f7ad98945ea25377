# %% [markdown]
# # Level 2 exercises · Attention is a weighted average 看山看石
#
# You will build attention from its smallest part up: a softmax that never overflows, kernel regression, five
# ways to score a match, scaled dot-product attention with a mask, self-attention, and its gradient, worked
# out by hand. At the end you teach four words where to look, with your functions alone.
#
# **How it works.** Each exercise has a cell for your code and, below it, a check. Replace the line
# `raise NotImplementedError(...)`, run your cell, then run the check. In less than a second it tells you what
# is right, shows the smallest input on which you differ from what was expected, and, if it recognises what
# went wrong, gives a hint. The check compares your function with a reference on random inputs of many shapes.
# Grading runs the same checks on new inputs, so a check that passes is a mark you have. Run it as often
# as you like.
#
# | exercise | difficulty | minutes | points |
# |---|---|---|---|
# | 1. softmax | ★ | 10 | 7 |
# | 2. kernel regression | ★★ | 15 | 5 |
# | 3. five scores | ★★ | 20 | 8 |
# | 4. scaled dot-product attention | ★★ | 25 | 8 |
# | 5. self-attention | ★★ | 15 | 5 |
# | 6. the gradient by hand | ★★★ | 30 | 6 |
# | 7. in your own words | ★★ | 15 | 6 |
#
# You may use any part of `torch` except its ready-made attention and softmax, and you may call your own
# earlier functions. In all shapes, q counts queries, k keys, d features of a query or key, e features of
# a value, and … stands for any number of leading axes, or none.

# %%
import math

import matplotlib.pyplot as plt
import torch
from matplotlib.cbook import get_sample_data

from autograder import check, done, progress
from tx_course.plots import heatmap, house_style

house_style()
torch.set_printoptions(precision=4, sci_mode=False)

# %% [markdown]
# ## 1. Softmax ★ (10 minutes, 7 points)
#
# Softmax turns scores into weights: all positive, with sum 1.
#
# $$\operatorname{softmax}(x)_j = \frac{e^{x_j}}{\sum_{j'} e^{x_{j'}}}$$
#
# On paper that is all. In a computer $e^{1000}$ is infinity, and infinity divided by infinity is not a
# number. The cure is a property of softmax: **adding the same number to every score changes nothing.**
# Choose that number well.
#
# Try by hand: $\operatorname{softmax}(0, \ln 3) = (1/4, 3/4)$. And $(1000, 1000 + \ln 3)$ must give the same.


# %% nbgrader={"grade": false, "grade_id": "softmax", "locked": false, "schema_version": 3, "solution": true, "task": false}
def softmax(x, dim=-1):
    """Return weights of the shape of ``x``: positive, with sum 1 along the axis ``dim``.

    ``x`` may have any number of axes, and scores as large as 1000 or −1000. It is
    not modified.
    """
    ### BEGIN SOLUTION
    exponentials = torch.exp(x - x.amax(dim, keepdim=True))
    return exponentials / exponentials.sum(dim, keepdim=True)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_softmax", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
check("softmax", softmax)

# %% [markdown]
# A picture of what you have: the same five scores, multiplied by a growing factor. Small scores give nearly
# equal weights. Large ones give nearly everything to the winner.

# %% mystnb={"image": {"alt": "Five curves of softmax weights against the factor on the scores, from 0 to 8. All start at 0.2. The curve of the largest score rises towards 1. The second largest first rises a little, then falls; the other three fall towards 0."}}
if done("softmax"):
    factors = torch.linspace(0, 8, 60, dtype=torch.float64)
    five = torch.tensor([-0.5, 0.0, 0.3, 0.8, 1.2], dtype=torch.float64)
    curves = softmax(factors[:, None] * five, -1)
    plt.plot(
        factors,
        curves,
        markevery=8,
        label=[f"score {score}" for score in five.tolist()],
    )
    plt.legend()
    _ = plt.gca().set(xlabel="factor on the scores", ylabel="weight")
    print("weights at factor 0:", curves[0].tolist())
    print(f"largest weight at factor 8: {curves[-1].max():.4f}")

# %% [markdown]
# ## 2. Kernel regression ★★ (15 minutes, 5 points)
#
# You know heights $v_j$ at places $k_j$ and want to guess the height at a place $q$. Average the known
# heights and let near ones count more. Nadaraya and Watson weigh them with a Gaussian of the distance:
#
# $$\hat y(q) = \sum_j w_j v_j, \qquad w_j = \frac{f(q, k_j)}{\sum_{j'} f(q, k_{j'})}, \qquad
# f(q, k) = \exp\left(-\frac{(q - k)^2}{2h^2}\right)$$
#
# The bandwidth $h$ says how far "near" reaches. This is attention in which nothing is learned.
#
# Look at $f$ and $w$ again before you write: which of your functions turns the exponents into the weights? It
# also saves you when $q$ lies so far from all data that every $f$ rounds to 0.
#
# Try by hand: halfway between a height of 2 and a height of 4 the guess is 3, for every $h$.


# %% nbgrader={"grade": false, "grade_id": "nadaraya_watson", "locked": false, "schema_version": 3, "solution": true, "task": false}
def nadaraya_watson(query, key, value, bandwidth):
    """Return a prediction (q) for each place in ``query`` (q).

    The data are heights ``value`` (k) at places ``key`` (k). ``bandwidth`` is a
    positive number.
    """
    ### BEGIN SOLUTION
    distance = (query[:, None] - key[None, :]) / bandwidth  # (q, k)
    return softmax(-(distance**2) / 2, dim=-1) @ value
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_nadaraya_watson", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
check("nadaraya_watson", nadaraya_watson)

# %% [markdown]
# Now use it on a real landscape: a line of ground heights near the Jacksboro fault in Tennessee (the grid
# comes with matplotlib). You keep every eighth height and guess the others. Which bandwidth is best? Too
# narrow copies the nearest point, too wide flattens the hills.

# %% mystnb={"image": {"alt": "A profile of ground heights with dots at every eighth step. The curve with the best bandwidth follows hills and valleys. A dashed curve with a bandwidth of forty steps is one broad hill and misses them."}}
if done("nadaraya_watson"):
    heights = torch.tensor(
        get_sample_data("jacksboro_fault_dem.npz")["elevation"][100],
        dtype=torch.float64,
    )
    steps = torch.arange(len(heights), dtype=torch.float64)
    hidden = steps % 8 != 0
    errors = {}
    for h in (1.0, 2.0, 4.0, 8.0, 40.0):
        guess = nadaraya_watson(steps, steps[~hidden], heights[~hidden], h)
        errors[h] = (guess - heights)[hidden].square().mean().sqrt().item()
        print(f"bandwidth {h:4.0f} steps: typical error {errors[h]:5.1f} m")
    best = min(errors, key=errors.get)
    plt.fill_between(steps, 300, heights, color="#d9dee3", label="true height")
    for h, style in ((best, "-"), (40.0, "--")):
        curve = nadaraya_watson(steps, steps[~hidden], heights[~hidden], h)
        plt.plot(steps, curve, style, marker="", label=f"bandwidth {h:.0f}")
    plt.plot(
        steps[~hidden],
        heights[~hidden],
        "o",
        color="#1f2933",
        markersize=3,
        label="known",
    )
    plt.gca().set(
        xlabel="place (steps of the grid)", ylabel="height (m)", ylim=(300, 1000)
    )
    _ = plt.legend(ncols=4, fontsize=9)

# %% [markdown]
# ## 3. Five scores ★★ (20 minutes, 8 points)
#
# Distance is one way to say how well a key fits a query. For vectors there is a whole family. Each
# turns one query and one key into one number:
#
# | kind | score of a query $q$ and a key $k$ | `weights` |
# |---|---|---|
# | `"dot"` | $q^\top k$ | `()` |
# | `"scaled_dot"` | $q^\top k / \sqrt{d}$ | `()` |
# | `"general"` | $q^\top W k$ | `(W,)` with $W$ (m, n) |
# | `"additive"` | $v^\top \tanh(W_q q + W_k k)$ | `(W_q, W_k, v)` with (a, m), (a, n), (a) |
# | `"concat"` | $v^\top \tanh(W [q; k])$ | `(W, v)` with (a, m + n), (a) |
#
# Here a query has m features and a key n. For the two dot products m = n = d. $[q; k]$ is the query with the
# key behind it.
#
# Write one function for all five. Begin with `"dot"`: the check gives points for each kind by itself, so
# you see every one turn green. Two hints. A batch of matrices is transposed by `key.transpose(-2, -1)`,
# whereas `key.T` turns *all* axes around. And to combine every query with every key, give them an axis of
# length 1 each, as in `a[..., :, None, :] + b[..., None, :, :]`.
#
# Try by hand: for $q = (1, 2)$ and $k = (3, 4)$ the dot score is 11, and the scaled one $11/\sqrt 2 \approx
# 7.778$.


# %% nbgrader={"grade": false, "grade_id": "scores", "locked": false, "schema_version": 3, "solution": true, "task": false}
def scores(kind, query, key, weights=()):
    """Return the scores (…, q, k) of each ``query`` (…, q, m) and ``key`` (…, k, n).

    ``kind`` is a row of the table above and ``weights`` is the tuple of tensors that
    row needs.
    """
    ### BEGIN SOLUTION
    if kind == "dot":
        return query @ key.transpose(-2, -1)
    if kind == "scaled_dot":
        return query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))
    if kind == "general":
        return (query @ weights[0]) @ key.transpose(-2, -1)
    if kind == "additive":
        query_weight, key_weight, readout = weights
    else:
        joint, readout = weights
        query_weight, key_weight = (
            joint[:, : query.size(-1)],
            joint[:, query.size(-1) :],
        )
    projected_query, projected_key = query @ query_weight.T, key @ key_weight.T
    return (
        torch.tanh(
            projected_query[..., :, None, :] + projected_key[..., None, :, :]
        )
        @ readout
    )
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_scores", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("scores", scores)

# %% [markdown]
# Why divide by $\sqrt d$? Draw random queries and keys and watch how far apart their scores lie (the standard
# deviation), and what softmax makes of 20 such scores.

# %%
if done("softmax", "scores"):
    generator = torch.Generator().manual_seed(0)
    print("   d   spread of dot   of scaled_dot   largest weight: dot   scaled_dot")
    for d in (4, 64, 1024):
        asks, answers = torch.randn(
            2, 200, 20, d, generator=generator, dtype=torch.float64
        )
        table = {
            kind: scores(kind, asks, answers) for kind in ("dot", "scaled_dot")
        }
        spread = [s.std().item() for s in table.values()]
        largest = [softmax(s, -1).amax(-1).mean().item() for s in table.values()]
        print(
            f"{d:4}   {spread[0]:13.2f}   {spread[1]:13.2f}   "
            f"{largest[0]:19.2f}   {largest[1]:10.2f}"
        )

# %% [markdown]
# The spread of the plain dot product grows like $\sqrt d$. With it the average over 20 keys becomes a
# choice of one, and a softmax that has chosen passes almost no gradient back. The scale keeps it an average.
#
# ## 4. Scaled dot-product attention ★★ (25 minutes, 8 points)
#
# All parts together:
#
# $$\operatorname{Attention}(Q, K, V) = \operatorname{softmax}\left(\frac{QK^\top}{\sqrt{d}}\right) V$$
#
# Return both the average and the weights. You have the scores and the softmax; what is new is the **mask**.
# It is a boolean tensor in which True means "may attend", and its shape broadcasts to that of the scores. A
# key where it says False must get a weight of exactly 0, and the weights of the others must still sum to 1.
# So the mask has to be used before softmax: which score would give a weight of 0? Every query is left at
# least one key.
#
# The number of queries and keys may differ (q ≠ k), and so may the width of keys and values (d ≠ e).
#
# Try by hand: if all keys are equal, every key that may be heard has the same weight, so the output is the
# plain mean of their values. With values 2, 4 and 9 and the last one hidden, it is 3.


# %% nbgrader={"grade": false, "grade_id": "scaled_dot_product_attention", "locked": false, "schema_version": 3, "solution": true, "task": false}
def scaled_dot_product_attention(query, key, value, mask=None):
    """Return the pair (output (…, q, e), weights (…, q, k)).

    ``query`` (…, q, d), ``key`` (…, k, d) and ``value`` (…, k, e). ``mask`` is None,
    or boolean and broadcasts to (…, q, k), with True for keys that may be attended to.
    """
    ### BEGIN SOLUTION
    logits = scores("scaled_dot", query, key)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    attention_weights = softmax(logits, dim=-1)
    return attention_weights @ value, attention_weights
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_scaled_dot_product_attention", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("scaled_dot_product_attention", scaled_dot_product_attention)

# %% [markdown]
# Here a word may only look back, as it will in level 3. Each word is a random vector, so nothing has been
# learned. The zeros come from the mask. The dark diagonal is there because a vector matches itself well.

# %% mystnb={"image": {"alt": "A 4 by 4 heat map of attention weights for the words i have a dream. Everything above the diagonal is zero: each word attends only to itself and the words before it."}}
words = ["i", "have", "a", "dream"]
if done("scaled_dot_product_attention"):
    vectors = torch.randn(
        4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    look_back = torch.ones(4, 4).tril().bool()
    _, weights = scaled_dot_product_attention(vectors, vectors, vectors, look_back)
    _ = heatmap(weights, words, words, title="a word may look back")
    print("each row sums to", weights.sum(-1).tolist())

# %% [markdown]
# ## 5. Self-attention ★★ (15 minutes, 5 points)
#
# In self-attention one set of vectors plays all three parts. Three matrices say how each vector asks, how it
# is found, and what it hands over:
#
# $$Q = XW_q, \qquad K = XW_k, \qquad V = XW_v$$
#
# Then comes your attention, **with** the scale. Notice which width goes into it: that of the projected
# queries, not that of $X$.
#
# Try it: with the numbers in the cell below the exercise, $Q$ is [[1, 0, 2], [2, 2, 2], [2, 1, 3]].


# %% nbgrader={"grade": false, "grade_id": "self_attention", "locked": false, "schema_version": 3, "solution": true, "task": false}
def self_attention(x, query_weight, key_weight, value_weight):
    """Return the pair (output (…, n, e), weights (…, n, n)) for ``x`` (…, n, m).

    ``query_weight`` and ``key_weight`` are (m, d), ``value_weight`` is (m, e). Scores
    are divided by √d.
    """
    ### BEGIN SOLUTION
    return scaled_dot_product_attention(
        x @ query_weight, x @ key_weight, x @ value_weight
    )
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_self_attention", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
check("self_attention", self_attention)

# %% [markdown]
# A small example that goes around in many texts does without the scale, and rounds the weights before it
# averages. See what each of the two costs. (Leaving out the scale is the same as multiplying the queries by
# $\sqrt d$.)

# %%
if done("self_attention"):
    x = torch.tensor(
        [[1, 0, 1, 0], [0, 2, 0, 2], [1, 1, 1, 1]], dtype=torch.float64
    )
    w_q = torch.tensor(
        [[1, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 1]], dtype=torch.float64
    )
    w_k = torch.tensor(
        [[0, 0, 1], [1, 1, 0], [0, 1, 0], [1, 1, 0]], dtype=torch.float64
    )
    w_v = torch.tensor(
        [[0, 2, 0], [0, 3, 0], [1, 0, 3], [1, 1, 0]], dtype=torch.float64
    )
    scaled, scaled_weights = self_attention(x, w_q, w_k, w_v)
    unscaled, unscaled_weights = self_attention(x, w_q * math.sqrt(3), w_k, w_v)
    print(
        "weights, scaled\n",
        scaled_weights,
        "\nweights, not scaled\n",
        unscaled_weights,
    )
    print("output, scaled\n", scaled, "\noutput, not scaled\n", unscaled)
    rounded = unscaled_weights.round(decimals=1)
    print("output, not scaled, weights rounded\n", rounded @ (x @ w_v))
    print("the rounded weights of a row sum to", rounded.sum(-1))
    print(
        "rounding moves the output by up to "
        f"{(rounded @ (x @ w_v) - unscaled).abs().max():.2f}"
    )

# %% [markdown]
# The rounded weights of the first row sum to 1.1, so its output is no longer an average. And the scale makes
# the second row listen around a little: its favourite keeps 0.91 of the attention instead of 0.98.

# %% [markdown]
# ## 6. The gradient, by hand ★★★ (30 minutes, 6 points)
#
# Autograd does this for you every day. Do it once yourself, and you will know why a confident softmax stops
# learning.
#
# Let $A = \operatorname{softmax}(S)$ along each row and $Y = AV$. Somebody hands you
# $G = \partial L / \partial Y$, which says how the loss changes with each number of the output. You return
# $\partial L / \partial S$, in two steps:
#
# 1. From the output back to the weights. $Y = AV$ is a matrix product. Key $j$ adds $A_{ij} V_j$ to the
#    output of query $i$, so how much does the loss change when $A_{ij}$ grows? Call the answer $B_{ij}$,
#    the *blame* of key $j$.
# 2. From the weights back to the scores. In a row $a$ of $A$, weight $a_i$ moves with *every* score of that
#    row: $\partial a_i / \partial s_j = a_i (1 - a_i)$ if $i = j$, and $-a_i a_j$ if not. Combine that with
#    $B$. It becomes short: compare the blame of a key with the average blame of its row. Which average?
#
# A test for yourself: adding one number to a row of scores changes nothing, so each row of your gradient
# sums to 0.
#
# Try by hand: scores (0, 0), values 1 and 3, $G = 1$. The weights are ½ and ½, and the gradient is (−½, ½).


# %% nbgrader={"grade": false, "grade_id": "attention_score_gradient", "locked": false, "schema_version": 3, "solution": true, "task": false}
def attention_score_gradient(scores, value, upstream):
    """Return the gradient of the loss with respect to ``scores``, both (…, q, k).

    The output is softmax(scores) @ value, with ``value`` (…, k, e). ``upstream``
    (…, q, e) is the gradient of the loss with respect to that output.
    """
    ### BEGIN SOLUTION
    a = softmax(scores, dim=-1)
    blame = upstream @ value.transpose(-2, -1)  # (…, q, k)
    return a * (blame - (a * blame).sum(-1, keepdim=True))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_attention_score_gradient", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
check("attention_score_gradient", attention_score_gradient)

# %% [markdown]
# ### Everything together: teach four words where to look
#
# Four words begin with all scores 0: each listens to all four alike. We want each to listen to the word
# before it (and the first to itself). The loss is the squared distance between the output and the vector of
# the word it should hear. We walk downhill along your gradient. No optimiser, no autograd.

# %% mystnb={"image": {"alt": "Two 4 by 4 heat maps for the words i have a dream. Before learning every weight is 0.25. After learning each word attends almost only to the word before it, and the first word to itself."}}
if done("softmax", "attention_score_gradient"):
    meaning = torch.randn(
        4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    wanted = meaning[[0, 0, 1, 2]]
    learned = torch.zeros(4, 4, dtype=torch.float64)
    for step in range(200):
        error = softmax(learned, -1) @ meaning - wanted
        if step % 50 == 0:
            print(f"step {step:3}: loss {error.square().sum():8.4f}")
        learned = learned - 0.2 * attention_score_gradient(
            learned, meaning, 2 * error
        )
    figure, pair = plt.subplots(1, 2, figsize=(7.6, 3.2))
    _ = heatmap(
        softmax(torch.zeros(4, 4), -1), words, words, axes=pair[0], title="before"
    )
    _ = heatmap(
        softmax(learned, -1),
        words,
        words,
        axes=pair[1],
        title="after 200 steps",
        row_label="",
    )

# %% [markdown]
# That is learning, with nothing hidden: a weighted average, and a gradient that says who should have been
# heard. In a network the scores are not free numbers but products of queries and keys, so the gradient
# flows one step further, into the projections. Nothing else is new.
#
# One warning. Start the same task with scores that are confident and wrong: a high score for the last word,
# in every row. How much gradient is left to mend that?

# %%
if done("softmax", "attention_score_gradient"):
    for confident in (0.0, 3.0, 10.0, 30.0):
        start = torch.zeros(4, 4, dtype=torch.float64)
        start[:, 3] = confident
        error = softmax(start, -1) @ meaning - wanted
        slope = attention_score_gradient(start, meaning, 2 * error).abs().max()
        print(f"score {confident:4.0f}: largest gradient {slope:.1e}")

# %% [markdown]
# ## 7. In your own words ★★ (15 minutes, 6 points, marked by a person)
#
# A friend tells you: "Attention divides by $\sqrt{d_k}$ because otherwise the gradients explode."
#
# In about 150 words, tell your friend what really happens, and why. Use numbers from this notebook. Then say
# why we divide by $\sqrt{d_k}$, and not by $d_k$.

# %% [markdown] nbgrader={"grade": true, "grade_id": "written", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# **A model answer.** Without the scale the gradients do not explode; they vanish. A score is a sum of $d_k$
# products. If the features are independent with variance 1, the variance of that sum is $d_k$, so scores
# spread like $\sqrt{d_k}$: in section 3 the spread is about 2 for 4 features and about 32 for 1024. Softmax
# of scores that far apart gives nearly all the weight to one of 20 keys (0.96 of it at 1024 features, where
# the scaled scores give 0.22). The gradient with respect to a score carries the factor $a_j$ times a
# difference that shrinks to 0 when one weight is nearly 1, so nothing is passed back: in the last table the
# largest gradient falls from 5 to $10^{-11}$. Dividing by $\sqrt{d_k}$, the standard deviation, brings the
# spread back to 1 for every width. Dividing by $d_k$ would divide twice over: the spread would be
# $1/\sqrt{d_k}$, so wide models would begin with nearly equal weights and could hardly prefer any key.
#
# **Rubric.** 1 point: the gradients vanish. 1: the variance (or spread) of a score grows with $d_k$, with a
# reason. 1: softmax saturates. 1: why a saturated softmax passes little gradient back. 1: a
# fitting number from the notebook. 1: why not $d_k$.

# %%
progress()
