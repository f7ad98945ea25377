"""The real experiments of the course, one module for each level that has them."""

import statistics
import time
from collections.abc import Callable


def over_seeds(name: str, run: Callable[[int], dict[str, float]], seeds: int = 3) -> dict[str, list[float]]:
    """Do ``run(seed)`` for each seed, and print mean ± standard deviation of every number it returns.

    A line also says the processor's seconds for one run, which, unlike those on the clock, do not depend on
    what else the machine does. The result holds each number of every seed.

    >>> over_seeds("squares", lambda seed: {"of the seed": float(seed**2)})  # doctest: +ELLIPSIS
    squares · of the seed: 1.667 ± 2.082 (... s)
    {'of the seed': [0.0, 1.0, 4.0]}
    """
    start = time.process_time()
    results = [run(seed) for seed in range(seeds)]
    seconds = (time.process_time() - start) / seeds
    numbers = {key: [result[key] for result in results] for key in results[0]}
    for key, values in numbers.items():
        mean, spread = statistics.mean(values), statistics.stdev(values)
        print(f"{name} · {key}: {mean:.3f} ± {spread:.3f} ({seconds:.0f} s)", flush=True)
    return numbers
