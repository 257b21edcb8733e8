"""Writes `configs.json` for the tests of `crates/policy/src/config`: configurations and how `transformers` interprets them.

Usage: make_config_fixtures.py [OUT]    (default: crates/policy/tests/fixtures/configs.json)
       make_config_fixtures.py --same [WRITTEN]
                                        checks that `transformers` interprets the configurations written by
                                        `embodied-r` like the originals (default: configs-written.json next to the
                                        fixture)

Each entry has:
  name, config          the content of a `config.json`
  inverse_frequencies   of RoPE, one per pair of head dimensions
  attention_factor      scale of the cosines and sines
  mrope_section         M-RoPE section sizes for time, height and width, or null
  windows               sliding-window size per layer, or null
"""
import json
import pathlib
import sys
import tempfile

from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRotaryEmbedding

ROTARY = {"llama": LlamaRotaryEmbedding, "qwen2": Qwen2RotaryEmbedding, "qwen2_5_vl_text": Qwen2_5_VLRotaryEmbedding}


def sizes(hidden, heads, kv_heads, layers, **more):
    return dict(
        vocab_size=1000, hidden_size=hidden, intermediate_size=2 * hidden, num_attention_heads=heads,
        num_key_value_heads=kv_heads, num_hidden_layers=layers, **more,
    )


QWEN2 = dict(model_type="qwen2", **sizes(3584, 28, 4, 28), max_position_embeddings=32768, rope_theta=1e6)
SMALL = dict(model_type="qwen2", **sizes(128, 2, 1, 6), max_position_embeddings=4096)
LLAMA = dict(model_type="llama", **sizes(2048, 32, 8, 4), head_dim=64, max_position_embeddings=131072, rope_theta=5e5)
LLAMA3 = dict(rope_type="llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
VL = dict(model_type="qwen2_5_vl", **sizes(2048, 16, 2, 4), max_position_embeddings=128000, vision_config={})
YARN = dict(factor=4.0, original_max_position_embeddings=32768)
SECTION = dict(mrope_section=[16, 24, 24])


def scaled(config, **scaling):
    return dict(config, rope_scaling=scaling)


def saved(config, **parameters):
    """The format of `transformers` 5."""
    return dict({key: value for key, value in config.items() if key != "rope_theta"}, rope_parameters=parameters)


def windowed(**fields):
    return dict(SMALL, use_sliding_window=True, **fields)


CONFIGS = {
    "qwen2.5-7b": QWEN2,
    "qwen2.5-7b as saved": saved(QWEN2, rope_type="default", rope_theta=1e6),
    "qwen2.5-7b with yarn by its older name": scaled(QWEN2, type="yarn", **YARN),
    "qwen2.5-7b with yarn as saved": saved(QWEN2, rope_type="yarn", rope_theta=1e6, **YARN),
    "no base given": SMALL,
    "linear": scaled(SMALL, type="linear", factor=2.5),
    "linear beside parameters that it overrules": dict(
        scaled(SMALL, rope_type="linear", factor=2.5), rope_parameters=dict(rope_type="default", rope_theta=77.0)
    ),
    "a base in both places": dict(saved(SMALL, rope_type="default", rope_theta=5e4), rope_theta=3e4),
    "an empty dictionary": dict(SMALL, rope_theta=3e4, rope_scaling={}),
    "llama-3.1": scaled(dict(LLAMA, hidden_size=4096, head_dim=128), factor=8.0, **LLAMA3),
    "llama-3.2": scaled(LLAMA, factor=32.0, **LLAMA3),
    "llama3 as saved": saved(LLAMA, rope_theta=5e5, factor=32.0, **LLAMA3),
    "yarn of the longest sequence": scaled(SMALL, rope_type="yarn", factor=2.0),
    "yarn without truncation": scaled(SMALL, rope_type="yarn", factor=8.0, truncate=False),
    "yarn with a truncation of null": scaled(SMALL, rope_type="yarn", factor=8.0, truncate=None),
    "yarn with an attention factor": scaled(SMALL, rope_type="yarn", factor=8.0, attention_factor=1.5),
    "yarn with betas": scaled(SMALL, rope_type="yarn", factor=8.0, beta_fast=16, beta_slow=2),
    "yarn with betas of 0": scaled(SMALL, rope_type="yarn", factor=8.0, beta_fast=0, beta_slow=0),
    "yarn with both scales": scaled(SMALL, rope_type="yarn", factor=40.0, mscale=1.0, mscale_all_dim=0.707),
    "yarn with one scale": scaled(SMALL, rope_type="yarn", factor=40.0, mscale=0.707),
    "yarn with a scale of 0": scaled(SMALL, rope_type="yarn", factor=40.0, mscale=0.707, mscale_all_dim=0),
    "yarn with a factor of null": scaled(
        SMALL, rope_type="yarn", factor=None, original_max_position_embeddings=1024
    ),
    "yarn from a very short length": scaled(
        SMALL, rope_type="yarn", factor=4.0, original_max_position_embeddings=4
    ),
    "yarn with the length beside it": dict(
        scaled(SMALL, rope_type="yarn", factor=4.0, original_max_position_embeddings=1024),
        original_max_position_embeddings=512,
    ),
    "qwen2.5-vl": dict(scaled(VL, type="mrope", **SECTION), rope_theta=1e6),
    "qwen2.5-vl without base or sections": VL,
    "qwen2.5-vl with yarn": dict(scaled(VL, type="yarn", **YARN, **SECTION), rope_theta=1e6),
    "qwen2.5-vl as saved": dict(
        model_type="qwen2_5_vl", vision_config={},
        text_config=dict(
            saved(VL, rope_type="default", rope_theta=1e6, **SECTION), model_type="qwen2_5_vl_text",
            sliding_window=None, use_sliding_window=False, layer_types=["full_attention"] * 4,
        ),
    ),
    "windows from a layer on": windowed(sliding_window=100, max_window_layers=4),
    "windows of the default size": windowed(max_window_layers=5),
    "windows from a layer that is not there": windowed(sliding_window=100),
    "windows of no size": windowed(sliding_window=None, max_window_layers=0),
    "windows that are off": dict(SMALL, use_sliding_window=False, sliding_window=100, max_window_layers=0),
    "windows by type": windowed(
        sliding_window=100, max_window_layers=0, layer_types=["sliding_attention", "full_attention"] * 3
    ),
    "windows by type in no layer": windowed(
        sliding_window=100, max_window_layers=0, layer_types=["full_attention"] * 6
    ),
    "qwen2.5-vl with windows": dict(VL, use_sliding_window=True, sliding_window=100, max_window_layers=1),
}


def reading(config):
    """How `transformers` interprets a `config.json`."""
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "config.json").write_text(json.dumps(config))
        read = AutoConfig.from_pretrained(folder).get_text_config()
    rotary = ROTARY[read.model_type](read)
    kinds = getattr(read, "layer_types", None) or ["full_attention"] * read.num_hidden_layers
    return {
        "inverse_frequencies": rotary.inv_freq.tolist(),
        "attention_factor": rotary.attention_scaling,
        "mrope_section": getattr(rotary, "mrope_section", None),
        "windows": [read.sliding_window if kind == "sliding_attention" else None for kind in kinds],
    }


def check(written):
    """`written` has the entries' names and the configurations written for them (text-only decoders)."""
    for name, config in json.loads(written.read_text()).items():
        want, found = reading(CONFIGS[name]), reading(config)
        del want["mrope_section"], found["mrope_section"]
        assert want == found, f"{name}: {found}, want {want}"
        print(f"{name}: the same")


def main():
    fixtures = pathlib.Path(__file__).resolve().parents[2] / "crates/policy/tests/fixtures"
    if sys.argv[1:2] == ["--same"]:
        return check(pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else fixtures / "configs-written.json")
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else fixtures / "configs.json"
    entries = [dict(name=name, config=config, **reading(config)) for name, config in CONFIGS.items()]
    out.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


if __name__ == "__main__":
    main()
