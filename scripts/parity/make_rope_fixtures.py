"""Writes `rope.json` for the tests of `crates/policy`: queries rotated by `transformers` with multimodal positions (M-RoPE).

Usage: make_rope_fixtures.py [OUT]      (default: crates/policy/tests/fixtures/rope.json)

Each entry has:
  config      the `config.json` of a Qwen2.5-VL
  positions   (tokens, 3) 3-D position ids: time, height, width
  x, turned   (tokens, head_dim) a head before and after rotation
"""
import json
import pathlib
import sys

import torch
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRotaryEmbedding, apply_rotary_pos_emb

SIZES = dict(
    model_type="qwen2_5_vl", vocab_size=1000, hidden_size=32, intermediate_size=32, num_attention_heads=2,
    num_key_value_heads=2, num_hidden_layers=1, max_position_embeddings=4096, rope_theta=1e4, vision_config={},
)
SCALINGS = [
    dict(type="mrope", mrope_section=[2, 3, 3]),
    dict(type="yarn", factor=4.0, original_max_position_embeddings=64, mrope_section=[4, 1, 3]),
]
# Text, then two video frames, then text.
POSITIONS = [[0, 0, 0], [1, 1, 1], [2, 2, 3], [2, 17, 2], [52, 2, 40], [52, 3, 2], [53, 53, 53], [2000, 2000, 2000]]


def entry(scaling):
    config = dict(SIZES, rope_scaling=scaling)
    rotary = Qwen2_5_VLRotaryEmbedding(Qwen2_5_VLConfig(**json.loads(json.dumps(config))).text_config)
    x = torch.randn((len(POSITIONS), 16), generator=torch.Generator().manual_seed(1))
    cos, sin = rotary(x, torch.tensor(POSITIONS).T[:, None])
    heads = x[None, None]
    turned, _ = apply_rotary_pos_emb(heads, heads, cos, sin)
    return {"config": config, "positions": POSITIONS, "x": x.tolist(), "turned": turned[0, 0].tolist()}


def main():
    fixtures = pathlib.Path(__file__).resolve().parents[2] / "crates/policy/tests/fixtures"
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else fixtures / "rope.json"
    out.write_text(json.dumps([entry(scaling) for scaling in SCALINGS]) + "\n")


if __name__ == "__main__":
    main()
