"""Writes the gradients of `crates/vision/tests`: of a vision tower, by `transformers`.

Usage: make_tower_fixtures.py [OUT]     (default: crates/vision/tests/fixtures)

The models are those of `make_vision_fixtures.py` and `make_head_size_fixtures.py`. For each, `tower_gradients.json` has, for the images of `IMAGES` and a video of the
frames of `VIDEO` in one batch, and for the loss `sum(sin(1) · e[0] + sin(2) · e[1] + …)` over all elements of the embeddings:
  loss       its value
  gradients  of each tensor, by its name in the checkpoint:
    norm     the Euclidean norm
    waves    its dot products with sin(k), sin(2 k), … for k in `WAVES`
    some     some elements: [index, value]
Everything is computed in f32; sums over elements in f64.

`tower_bf16.json` has the error of torch's bfloat16 autocast for each model:
  embeddings  relative error (in norm) of all embeddings
  gradients   relative error (in norm) of all gradients
"""
import pathlib
import sys

import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText

from make_head_size_fixtures import WRITTEN, written_model
from make_model_fixtures import write_json
from make_vision_fixtures import PROCESSOR, QWEN3_PROCESSOR, features, image, image_processor, video_patches

# Several windows, some of them incomplete; a small image; three patches of frames.
IMAGES = [(252, 140), (100, 180)]
VIDEO = [(170, 120)] * 5
WAVES = [1.0, 0.37, 2.11, 0.05, 1.7, 2.9]
SAMPLES = 12


def waves(count, step):
    return torch.sin(step * torch.arange(1, count + 1, dtype=torch.float64))


def inputs(processor):
    """The patches and grids of the images and the video."""
    images = image_processor(processor)([image(w, h, 1 + i) for i, (w, h) in enumerate(IMAGES)], return_tensors="pt")
    frames, frames_grid = video_patches([image(w, h, 11 + i) for i, (w, h) in enumerate(VIDEO)], processor)
    return torch.cat([images["pixel_values"].float(), frames]), torch.cat([images["image_grid_thw"], frames_grid])


def passed(tower, pixels, grid, is_bf16=False):
    """The embeddings, the loss, and the gradients by the tensors' names within the tower."""
    tower.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16):
        embeddings = torch.cat(features(tower, pixels, grid)).double().flatten()
    loss = (embeddings * waves(embeddings.numel(), 1.0)).sum()
    loss.backward()
    gradients = {name: tensor.grad.double().flatten() for name, tensor in tower.named_parameters()}
    return embeddings.detach(), loss.item(), gradients


def reference(tower, stored, processor):
    """The contents of `tower_gradients.json`. `stored` has the tensors' names in the checkpoint by those within the tower."""
    _, loss, found = passed(tower, *inputs(processor))
    gradients = {}
    for name, flat in found.items():
        some = [(i * 7919 + 13) % flat.numel() for i in range(SAMPLES)]
        gradients[stored[name]] = dict(
            norm=flat.norm().item(),
            waves=[(flat * waves(flat.numel(), step)).sum().item() for step in WAVES],
            some=[[i, flat[i].item()] for i in some],
        )
    assert gradients.keys() == set(stored.values()), stored
    return dict(loss=loss, images=IMAGES, video=VIDEO, waves=WAVES, gradients=gradients)


def autocast_error(tower, processor):
    """The entry of a model in `tower_bf16.json`."""
    pixels, grid = inputs(processor)
    embeddings, _, gradients = passed(tower, pixels, grid)
    near, _, near_gradients = passed(tower, pixels, grid, is_bf16=True)
    whole = torch.cat(list(gradients.values()))
    near_whole = torch.cat([near_gradients[name] for name in gradients])
    return dict(
        embeddings=((near - embeddings).norm() / embeddings.norm()).item(),
        gradients=((near_whole - whole).norm() / whole.norm()).item(),
    )


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "crates/vision/tests/fixtures")
    errors = {}
    for form, processor in (("nested", PROCESSOR), ("flat", PROCESSOR), ("qwen3_vl", QWEN3_PROCESSOR)):
        tower = AutoModelForImageTextToText.from_pretrained(out / form, dtype=torch.float32).model.visual
        with safe_open(out / form / "model.safetensors", "pt") as file:
            stored = {name.split("visual.", 1)[1]: name for name in file.keys() if "visual." in name}
        write_json(out / form / "tower_gradients.json", reference(tower, stored, processor))
        errors[form] = autocast_error(tower, processor)
    tower = written_model(out / WRITTEN).model.visual
    stored = {name: f"model.visual.{name}" for name, _ in tower.named_parameters()}
    write_json(out / WRITTEN / "tower_gradients.json", reference(tower, stored, QWEN3_PROCESSOR))
    errors[WRITTEN] = autocast_error(tower, QWEN3_PROCESSOR)
    write_json(out / "tower_bf16.json", errors)


if __name__ == "__main__":
    main()
