"""Writing 512 tokens: this library's cache against no cache, and against transformers' GPT-2 with its own.

Run ``python benchmarks/decoding.py`` (``--write`` puts the table into benchmarks/README.md).
"""

from functools import partial

import torch
from measure import machine, ratios, report, table
from transformers import GPT2Config, GPT2LMHeadModel

from tx_course.bert import Gpt, GptConfig
from tx_course.decoding import generate
from tx_course.experiments.variants import generate_without_cache
from tx_course.measure import seconds

STEPS = 512
CONFIG = GptConfig(vocabulary=1000, d_model=128, heads=4, layers=4, d_hidden=512, max_length=STEPS + 1)


@torch.no_grad()
def theirs_with_cache(gpt2, tokens):
    """Call transformers' model step by step, without the checks of its ``generate``."""
    new, past = tokens, None
    for _ in range(STEPS):
        result = gpt2(new, past_key_values=past, use_cache=True)
        past, new = result.past_key_values, result.logits[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, new], dim=1)
    return tokens


def theirs_generate(gpt2, tokens):
    """Call transformers' ``generate``, as its users do."""
    return gpt2.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=STEPS,
        do_sample=False,
        pad_token_id=0,
    )


def transformers_gpt2():
    config = GPT2Config(
        vocab_size=CONFIG.vocabulary,
        n_positions=CONFIG.max_length,
        n_embd=CONFIG.d_model,
        n_layer=CONFIG.layers,
        n_head=CONFIG.heads,
        n_inner=CONFIG.d_hidden,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config).eval()


def main():
    torch.manual_seed(0)
    gpt, gpt2 = Gpt(CONFIG).eval(), transformers_gpt2()
    rows = []
    for batch in (1, 8):
        prompt = torch.randint(CONFIG.vocabulary, (batch, 1))
        peers = {
            "this library, cache": partial(generate, gpt, prompt, STEPS),
            "this library, no cache": partial(generate_without_cache, gpt, prompt, STEPS),
            "transformers, cache": partial(theirs_with_cache, gpt2, prompt),
            "transformers, `generate`": partial(theirs_generate, gpt2, prompt),
        }
        if batch > 1:
            del peers["this library, no cache"]  # minutes, and the same lesson
        ratio = ratios(peers, "this library, cache")
        rate = batch * STEPS / seconds(peers["this library, cache"], repeats=3)
        rows += [[str(batch), name, f"{x:.2f}", f"{rate / x:,.0f}"] for name, x in ratio.items()]
    report(
        "decoding",
        f"### Decoding {STEPS} tokens\n\nA GPT of {CONFIG.layers} layers and {CONFIG.d_model} features "
        f"({machine()}, float32):\n\n"
        f"{table(['batch', 'how', 'time ÷ our cache', 'tokens a second'], rows)}",
    )


if __name__ == "__main__":
    main()
