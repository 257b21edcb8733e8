"""Writes the gradients of `crates/vision/tests`: of a vision tower, by `transformers`.

Usage: make_tower_fixtures.py [OUT]     (default: crates/vision/tests/fixtures)

The models are those of `make_vision_fixtures.py`. For each, `tower_gradients.json` has, for the images of `IMAGES` and a video of the
frames of `VIDEO` in one batch, and for the loss `sum(sin(1) · e[0] + sin(2) · e[1] + …)` over all elements of the embeddings:
  loss       its value
  gradients  of each tensor, by its name in the checkpoint:
    norm     the Euclidean norm
    waves    its dot products with sin(k), sin(2 k), … for k in `WAVES`
    some     some elements: [index, value]
Everything is computed in f32; sums over elements in f64.
"""
import pathlib
import sys

import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText

from make_model_fixtures import write_json
from make_vision_fixtures import PROCESSOR, QWEN3_PROCESSOR, features, image, image_processor, video_patches

# Several windows, some of them incomplete; a small image; three patches of frames.
IMAGES = [(252, 140), (100, 180)]
VIDEO = [(170, 120)] * 5
WAVES = [1.0, 0.37, 2.11, 0.05, 1.7, 2.9]
SAMPLES = 12


def waves(count, step):
    return torch.sin(step * torch.arange(1, count + 1, dtype=torch.float64))


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "crates/vision/tests/fixtures")
    for form, processor in (("nested", PROCESSOR), ("flat", PROCESSOR), ("qwen3_vl", QWEN3_PROCESSOR)):
        images = image_processor(processor)([image(w, h, 1 + i) for i, (w, h) in enumerate(IMAGES)], return_tensors="pt")
        frames, frames_grid = video_patches([image(w, h, 11 + i) for i, (w, h) in enumerate(VIDEO)], processor)
        pixels = torch.cat([images["pixel_values"].float(), frames])
        grid = torch.cat([images["image_grid_thw"], frames_grid])
        tower = AutoModelForImageTextToText.from_pretrained(out / form, dtype=torch.float32).model.visual
        embeddings = torch.cat(features(tower, pixels, grid))
        loss = (embeddings.double().flatten() * waves(embeddings.numel(), 1.0)).sum()
        loss.backward()
        with safe_open(out / form / "model.safetensors", "pt") as file:
            stored = {name.split("visual.", 1)[1]: name for name in file.keys() if "visual." in name}
        gradients = {}
        for name, tensor in tower.named_parameters():
            flat = tensor.grad.double().flatten()
            some = [(i * 7919 + 13) % flat.numel() for i in range(SAMPLES)]
            gradients[stored.pop(name)] = dict(
                norm=flat.norm().item(),
                waves=[(flat * waves(flat.numel(), step)).sum().item() for step in WAVES],
                some=[[i, flat[i].item()] for i in some],
            )
        assert not stored, stored
        write_json(out / form / "tower_gradients.json", dict(loss=loss.item(), images=IMAGES, video=VIDEO, waves=WAVES, gradients=gradients))


if __name__ == "__main__":
    main()
