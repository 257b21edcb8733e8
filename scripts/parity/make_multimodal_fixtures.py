"""Writes `multimodal.json` of `crates/vision/tests/fixtures/nested` and `video_frames.json` of `crates/media/tests/fixtures`.

Usage: make_multimodal_fixtures.py [ROOT]     (default: the working directory)

  multimodal.json    reference results of `transformers` for prompts of images, videos and text, with the model beside it:
    visuals    images ([width, height]) and videos (a list of them, and `fps`), in the order of the prompt; `seed` is that
               of the first image or frame, the next ones have the next seeds
    raw        the token ids with one placeholder per image or video
    ids        the token ids with expanded placeholders
    positions  3-D position ids of each token
    logp       log-probabilities after the prompt: [token, value]
    greedy     the greedy continuation
  video_frames.json  indices of sampled frames by `qwen-vl-utils`:
    fps        [frames, fps of the video, sampled fps, maximum frames, indices]
    uniform    [frames, sampled frames, indices]
Everything is computed in f32. It needs torchvision, besides transformers and qwen-vl-utils.
"""
import functools
import json
import math
import pathlib
import sys

import torch
from qwen_vl_utils.vision_process import smart_nframes
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from make_vision_fixtures import PROCESSOR, cases, clear_continuation, image, video_patches

IMAGE, VIDEO = "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"
SMALL, WIDE, TALL = (84, 56), (140, 56), (56, 112)


def video(frames, fps, size=SMALL):
    return dict(sizes=[size] * frames, fps=fps)


# Name, text with `{}` in place of each visual, visuals.
CASES = [
    ("an image", "Look: {} What is there?", [SMALL]),
    ("several images", "First {} then {} and {} What changed?", [SMALL, TALL, WIDE]),
    ("an image at the end", "What is there? {}", [WIDE]),
    ("a video at 2 fps", "{} What is there?", [video(6, 2.0)]),
    ("an odd number of frames at 1 fps", "{} Where?", [video(5, 1.0)]),
    ("one frame", "{} Where?", [video(1, 2.0)]),
    ("a fractional rate", "See {} Where is it?", [video(14, 3.7)]),
    ("truncated products", "See {} Where is it?", [video(22, 2.4)]),
    ("a high rate", "{} Where?", [video(17, 30.0)]),
    ("a video longer than its sides", "A {} and then text", [video(12, 0.5)]),
    ("a long video at the end", "What is there? {}", [video(9, 0.75, TALL)]),
    ("videos of two rates", "{} and {} differ.", [video(4, 1.0), video(7, 4.0, WIDE)]),
    ("images and videos mixed", "{} a {} b {} c {} d", [TALL, video(5, 1.5), SMALL, video(3, 0.4, WIDE)]),
    ("a resized image before a video", "{}{} Where?", [(100, 180), video(4, 2.0)]),
]
# Without a token after the last image or video.
OPEN = {"an image at the end", "a long video at the end"}


def pixels_of(frames, processor):
    """The patches of frames that are not resized, as the video processor gives them."""
    patches, grid = video_patches(frames, PROCESSOR)
    size = dict(shortest_edge=PROCESSOR["min_pixels"], longest_edge=PROCESSOR["max_pixels"])
    given = processor(videos=[frames], size=size, cap_pixels_per_frame=False, return_tensors="pt")
    assert torch.equal(given["video_grid_thw"], grid)
    assert (given["pixel_values_videos"] - patches).abs().max() < 2e-6
    return patches, grid


def case(model, tokenizer, name, text, visuals, first_seed):
    images = Qwen2VLImageProcessorPil(**{k: v for k, v in PROCESSOR.items() if k not in ("image_processor_type", "processor_class")})
    videos = Qwen2VLVideoProcessor()
    seed, raw, parts = first_seed, text, dict(images=[], videos=[], times=[])
    expanded = text
    for visual in visuals:
        if isinstance(visual, tuple):
            given = images([image(*visual, seed)], return_tensors="pt")
            pixels, grid = given["pixel_values"].float(), given["image_grid_thw"]
            seed, place = seed + 1, IMAGE
            parts["images"].append((pixels, grid))
        else:
            frames = [image(*size, seed + i) for i, size in enumerate(visual["sizes"])]
            pixels, grid = pixels_of(frames, videos)
            seed, place = seed + len(frames), VIDEO
            parts["videos"].append((pixels, grid))
            parts["times"].append(2 / visual["fps"])
        if name in OPEN and visual is visuals[-1]:
            place = place.removesuffix("<|vision_end|>")
        pad = "<|image_pad|>" if "image_pad" in place else "<|video_pad|>"
        raw = raw.replace("{}", place, 1)
        expanded = expanded.replace("{}", place.replace(pad, pad * (math.prod(grid[0].tolist()) // 4)), 1)
    inputs = {}
    if parts["images"]:
        inputs.update(pixel_values=torch.cat([p for p, _ in parts["images"]]), image_grid_thw=torch.cat([g for _, g in parts["images"]]))
    if parts["videos"]:
        inputs.update(pixel_values_videos=torch.cat([p for p, _ in parts["videos"]]), video_grid_thw=torch.cat([g for _, g in parts["videos"]]), second_per_grid_ts=torch.tensor(parts["times"]))
    ids = tokenizer.encode(expanded).ids
    tensor = torch.tensor([ids])
    types = torch.where(tensor == tokenizer.token_to_id("<|image_pad|>"), 1, 0) + torch.where(tensor == tokenizer.token_to_id("<|video_pad|>"), 2, 0)
    positions, _ = model.model.get_rope_index(tensor, mm_token_type_ids=types, **{k: v for k, v in inputs.items() if "pixel" not in k})
    continuation = clear_continuation(model, tokenizer, ids, types, inputs)
    if not continuation:
        return None
    greedy, first = continuation
    return dict(
        name=name, seed=first_seed, visuals=[dict(sizes=[v], fps=None) if isinstance(v, tuple) else v for v in visuals],
        raw=tokenizer.encode(raw).ids, ids=ids, positions=positions[:, 0].T.tolist(),
        logp=[[i, first[i].item()] for i in range(0, len(first), 9)], greedy=greedy,
    )


def indices(total, count):
    """As the video readers of `qwen-vl-utils`."""
    return torch.linspace(0, total - 1, count).round().long().tolist()


def sampled():
    fps = []
    for total, video_fps, rate, most in [
        (2, 30.0, 2.0, 64), (3, 30.0, 2.0, 64), (4, 30.0, 2.0, 64), (5, 1.0, 2.0, 64), (9, 10.0, 2.0, 64), (30, 30.0, 2.0, 64),
        (75, 10.0, 2.0, 64), (100, 25.0, 2.0, 64), (301, 30000 / 1001, 2.0, 64), (900, 30.0, 2.0, 64), (1801, 30.0, 2.0, 64),
        (1801, 30.0, 2.0, 32), (54000, 30.0, 2.0, 256), (54000, 30.0, 2.0, 768), (240, 24.0, 1.0, 768), (240, 24.0, 0.5, 768),
        (240, 24.0, 0.1, 768), (240, 24.0, 3.7, 63), (240, 24.0, 24.0, 768), (240, 24.0, 60.0, 768), (7, 2.0, 2.0, 5), (61, 10.0, 2.0, 2),
    ]:
        given = dict(fps=rate, max_frames=most)
        fps.append([total, video_fps, rate, most, indices(total, smart_nframes(given, total_frames=total, video_fps=video_fps))])
    uniform = [[total, count, indices(total, count)] for total, count in [
        (16, 16), (17, 16), (20, 16), (32, 16), (33, 16), (100, 16), (1801, 16), (100, 2), (101, 4), (6, 4), (9999, 32), (54000, 64), (4, 3), (6, 3), (10, 5), (12, 9),
    ]]
    return dict(fps=fps, uniform=uniform)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder = root / "crates/vision/tests/fixtures/nested"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    write(folder / "multimodal.json", cases(functools.partial(case, model, tokenizer), CASES))
    write(root / "crates/media/tests/fixtures/video_frames.json", sampled())


if __name__ == "__main__":
    main()
