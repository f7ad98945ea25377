"""The comparisons of level 9 are fair: each program does what its name says, and nothing else differs."""

import pytest
import torch

from tx_course import variants
from tx_course.bert import Gpt, GptConfig
from tx_course.decoding import generate
from tx_course.experiments.variants import MIXERS, build, exponent, generate_without_cache, gradient_noise


def test_every_name_that_is_promised_is_there():
    assert all(hasattr(variants, name) for name in variants.__all__)


@pytest.mark.parametrize("name", [*MIXERS, "Swin"])
def test_models_differ_in_who_hears_whom(name):
    torch.manual_seed(0)
    model = build(name)
    images = torch.randn(1, 1, 28, 28, requires_grad=True)
    features = model.features(images).flatten(1, -2)  # (1, places, m)
    some = features[0, -1] * torch.arange(features.size(-1))  # a plain sum of normalised features is constant
    last = torch.autograd.grad(some.sum(), images)[0]
    hears_the_first_pixel = bool(last[0, 0, 0, 0] != 0)
    assert hears_the_first_pixel == (name != "no mixing")
    assert model(images).shape == (1, 10)


def test_all_models_that_mix_have_about_as_many_parameters():
    sizes = [
        sum(p.numel() for p in build(name).parameters()) for name in [*MIXERS, "Swin"] if name != "no mixing"
    ]
    assert max(sizes) < 1.15 * min(sizes)


def test_writing_with_and_without_a_cache_gives_the_same_text():
    torch.manual_seed(1)
    gpt = Gpt(GptConfig.small(20)).double().eval()
    for weight in gpt.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    prompt = torch.tensor([[3, 1, 4]])
    assert torch.equal(generate(gpt, prompt, 12), generate_without_cache(gpt, prompt, 12))


def test_the_score_function_is_unbiased_a_baseline_quiets_it_and_the_others_trade_bias_for_noise():
    found = gradient_noise(draws=20_000)
    plain, quiet = found["score function"], found["score function, mean cost as baseline"]
    for unbiased in (plain, quiet):
        assert unbiased.bias < 5 * unbiased.deviation / 20_000**0.5
    assert quiet.deviation < plain.deviation / 2
    assert found["straight-through"].bias > 0.2
    warm, cold = found["Gumbel, temperature 1"], found["Gumbel, temperature 0.1"]
    assert cold.bias < warm.bias
    assert cold.deviation > warm.deviation


def test_an_exponent_is_the_slope_on_double_logarithmic_paper():
    assert exponent((128, 256, 512), [7.0, 14.0, 28.0]) == pytest.approx(1)
