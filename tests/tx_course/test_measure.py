import pytest
import torch

from tx_course.attention import attend
from tx_course.measure import peak_bytes, seconds


def test_views_are_not_counted_twice():
    assert peak_bytes(lambda: torch.zeros(100, dtype=torch.float64).view(10, 10).T) == 800


def test_views_of_what_was_there_before_are_not_counted():
    x = torch.zeros(100, dtype=torch.float64)
    assert peak_bytes(lambda: x[None].T) == 0
    assert peak_bytes(lambda: x[None].T + 1) == 800


def test_what_is_freed_is_no_longer_counted():
    def one_at_a_time():
        for _ in range(5):
            torch.zeros(100, dtype=torch.float64)

    assert peak_bytes(one_at_a_time) == 800


def test_what_autograd_keeps_is_counted():
    x = torch.zeros(100, dtype=torch.float64, requires_grad=True)

    def chain():
        return x.exp().exp().exp()

    with torch.no_grad():
        without = peak_bytes(chain)
    assert peak_bytes(chain) > without


def test_memory_of_attention_is_quadratic_with_the_weights_and_linear_without():
    def growth(weights):
        small, large = (torch.zeros(3, 1, 1, n, 16) for n in (512, 1024))
        return peak_bytes(lambda: attend(*large, weights=weights)) / peak_bytes(
            lambda: attend(*small, weights=weights)
        )

    assert growth(weights=True) == pytest.approx(4, rel=0.1)
    assert growth(weights=False) == pytest.approx(2, rel=0.1)


def test_seconds_wants_at_least_one_run():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        seconds(lambda: None, repeats=0)
