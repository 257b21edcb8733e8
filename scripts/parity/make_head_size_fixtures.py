"""Writes `crates/vision/tests/fixtures/qwen3_vl_72`: a Qwen3-VL whose vision tower has heads of 72, as those of 4B and 8B, and an
LM head of its own.

Usage: make_head_size_fixtures.py [OUT]     (default: crates/vision/tests/fixtures; before make_tower_fixtures.py)

The folder has `config.json` and `expected.json`, as described in `make_vision_fixtures.py`. The weights would be large: the tests
compute them by the formula of `weights`, as this script does (`crates/vision/tests/parity/written_model.rs`). The tokenizer and the
image processor are those of `qwen3_vl`.
"""
import functools
import math
import pathlib
import sys

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from make_model_fixtures import write_json
from make_vision_fixtures import QWEN3_PROCESSOR, case, cases, qwen3_config

WRITTEN = "qwen3_vl_72"
CASES = [
    ("least", "images", [(56, 56)]),
    ("two sizes", "images", [(252, 140), (100, 180)]),
]


def noise(seed, count):
    """Values from -1 to 1, exact in f32."""
    values, state = np.empty(count, np.float32), seed
    for i in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        values[i] = state >> 40
    return values / np.float32(2**23) - np.float32(1)


def weights(name, shape, seed):
    """A tensor of the checkpoint, whose index among the sorted names is `seed`. Every operation is exact or rounded once."""
    values = noise(seed, math.prod(shape))
    if "norm" in name and name.endswith("weight"):
        values = np.float32(1) + np.float32(0.25) * values
    elif name.endswith("bias"):
        values = np.float32(0.25) * values
    elif "embed" in name and "patch" not in name:
        values = np.float32(0.5) * values
    else:
        values = np.float32(2 / math.sqrt(math.prod(shape[1:]))) * values
    return torch.tensor(values.reshape(shape))


def written_model(folder):
    """The model of the configuration in `folder`."""
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig.from_pretrained(folder)).float().eval()
    tensors = sorted(model.named_parameters())
    with torch.no_grad():
        for seed, (name, tensor) in enumerate(tensors):
            tensor.copy_(weights(name, tuple(tensor.shape), seed))
    return model


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "crates/vision/tests/fixtures")
    folder = out / WRITTEN
    folder.mkdir(exist_ok=True)
    tokenizer = Tokenizer.from_file(str(out / "qwen3_vl" / "tokenizer.json"))
    config = qwen3_config(tokenizer)
    config.tie_word_embeddings = False
    config.text_config.tie_word_embeddings = False
    vision = config.vision_config
    vision.depth, vision.hidden_size, vision.num_heads, vision.intermediate_size = 3, 144, 2, 96
    vision.deepstack_visual_indexes = [0]
    config.architectures = ["Qwen3VLForConditionalGeneration"]
    config.dtype = torch.float32
    config.save_pretrained(folder)
    model = written_model(folder)
    assert model.lm_head.weight.data_ptr() != model.model.language_model.embed_tokens.weight.data_ptr()
    write_json(folder / "expected.json", cases(functools.partial(case, model, tokenizer, QWEN3_PROCESSOR), CASES))


if __name__ == "__main__":
    main()
