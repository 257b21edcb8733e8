"""Writes the block fixtures of `crates/kernels`: random blocks of every quantization format and their dequantized values.

Usage: make_block_fixtures.py [OUT]     (default: crates/kernels/tests/fixtures/blocks)

For each format, `NAME.blocks` has the bytes and `NAME.values` their values as dequantized by the Python package `gguf`,
in little-endian f32.
"""
import pathlib
import shutil
import sys

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

NUMBERS = 512
FORMATS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F16", "BF16"]
# Byte offsets of the half-precision scales within each block.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def random_blocks(name, numbers, generator):
    """Any bytes form a valid block as long as its scales are finite."""
    length, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    blocks = generator.integers(0, 256, (numbers // length, size), dtype=np.uint8)
    for at in SCALES.get(name, []):
        scales = generator.normal(0, 0.02, (len(blocks), 1)).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8)
    if name == "F16":
        blocks = generator.normal(0, 1, numbers).astype(np.float16).view(np.uint8)
    if name == "BF16":
        blocks = (generator.normal(0, 1, numbers).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    return blocks.reshape(1, -1)


def main():
    here = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here / "crates/kernels/tests/fixtures/blocks"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for seed, name in enumerate(FORMATS):
        blocks = random_blocks(name, NUMBERS, np.random.default_rng(seed))
        values = dequantize(blocks, GGMLQuantizationType[name]).astype("<f4")
        assert values.size == NUMBERS and np.isfinite(values).all(), name
        (out / f"{name}.blocks").write_bytes(blocks.tobytes())
        (out / f"{name}.values").write_bytes(values.tobytes())
        print(f"{name}: {blocks.size} bytes, largest {abs(values).max():.3g}")


if __name__ == "__main__":
    main()
