"""Writes `videos.json` of `crates/vision/tests/fixtures/qwen3_vl` and `timestamped_frames.json` of `crates/media/tests/fixtures`.

Usage: make_video_fixtures.py [ROOT]     (default: the working directory)

It needs transformers 4.57, whose processor gives the token ids that Qwen3-VL was published with: later ones keep an outer
pair of `<|vision_start|>` and `<|vision_end|>` around the whole video.

  videos.json        reference results for prompts of images, videos and text, with the model beside it:
    visuals    images ([width, height]) and videos (a list of them, with `indices` of frames and `fps` of the file), in the
               order of the prompt; `seed` is that of the first image or frame, the next ones have the next seeds
    text       the prompt as text, with the placeholder of each image or video
    ids        the token ids with timestamps and expanded placeholders
    positions  3-D position ids of each token
    logp       log-probabilities after the prompt: [token, value]
    greedy     the greedy continuation
  timestamped_frames.json  indices of the frames that `Qwen3VLVideoProcessor` samples:
    fps        [frames, fps of the video, sampled fps, maximum frames, indices]
    uniform    [frames, sampled frames, indices]
Everything is computed in f32.
"""
import json
import math
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file
from transformers import Qwen2TokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.video_utils import VideoMetadata

import numpy as np
from PIL import Image

IMAGE, VIDEO = "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"
# Frames of these sizes are not resized.
SMALL, WIDE, TALL = (96, 64), (160, 64), (64, 128)
GREEDY_TOKENS, GREEDY_MARGIN = 6, 5e-3


def image(width, height, seed):
    """Gradients, edges and some noise, in integers: as in make_vision_fixtures.py, which needs another transformers."""
    x, y = np.meshgrid(np.arange(width, dtype=np.int64), np.arange(height, dtype=np.int64))
    red = (3 * x + y + seed * 31) % 256
    green = ((x // 7 + y // 5 + seed) % 2) * 150 + (x * y + seed) % 64
    blue = (2 * y + (x * 7919 + y * 104729 + seed * 97) % 41 + 20) % 256
    return Image.fromarray(np.stack([red, green, blue], -1).astype(np.uint8))


def video(indices, fps, size=SMALL):
    return dict(sizes=[size] * len(indices), indices=list(indices), fps=fps)


# Name, text with `{}` in place of each visual, visuals.
CASES = [
    ("a video at 2 fps", "<|im_start|>user\n{}What is there?<|im_end|>\n<|im_start|>assistant\n", [video(range(6), 2.0)]),
    ("an odd number of frames", "{} Where?", [video([0, 12, 24, 36, 48], 24.0)]),
    ("one pair behind text", "See: {} Where is it?", [video([0, 29], 29.97)]),
    ("irregular frames of a long file", "{}Where?", [video([0, 911, 1000, 54321], 30.0)]),
    ("times that are halves of a tenth", "{}?", [video(range(8), 10.0)]),
    ("a tall video at the end", "What is there? {}", [video(range(0, 70, 10), 12.5, TALL)]),
    ("two videos", "{} and {} differ.", [video(range(4), 1.0), video([0, 3, 5, 9, 11, 14], 4.0, WIDE)]),
    ("images and videos mixed", "{} a {} b {} c {} d", [TALL, video(range(5), 1.5), SMALL, video([1, 2, 30], 0.4, WIDE)]),
    ("many frames", "{} Where?", [video(range(0, 600, 25), 25.0)]),
]


def model_of(folder):
    """The model whose configuration a later transformers has written."""
    written = json.loads((folder / "config.json").read_text())
    rope = written["text_config"].pop("rope_parameters")
    written["text_config"]["rope_theta"] = rope.pop("rope_theta")
    written["text_config"]["rope_scaling"] = rope
    written["text_config"]["tie_word_embeddings"] = written["tie_word_embeddings"]
    written["vision_config"].pop("rope_parameters")
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**written)).float().eval()
    missing = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert missing.missing_keys in ([], ["lm_head.weight"]) and not missing.unexpected_keys, missing
    model.tie_weights()
    return model


def processor_of(folder):
    def settings(name):
        fields = json.loads((folder / name).read_text())
        return {k: v for k, v in fields.items() if not k.endswith(("_type", "_class"))}

    images = settings("preprocessor_config.json")
    limits = images.pop("size")
    image_processor = Qwen2VLImageProcessor(**images, min_pixels=limits["shortest_edge"], max_pixels=limits["longest_edge"])
    tokenizer = Qwen2TokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    return Qwen3VLProcessor(image_processor, tokenizer, Qwen3VLVideoProcessor(**settings("video_preprocessor_config.json")))


def clear_continuation(model, processor, inputs):
    """The greedy continuation, without a stop token, and the log-probabilities of its first token; `None` if a margin is small."""
    named = processor.tokenizer.convert_tokens_to_ids
    # Placeholders are never sampled (`suppress_tokens`).
    suppressed = [named(token) for token in ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")]
    ids, greedy, margin, first = inputs.pop("input_ids"), [], math.inf, None
    inputs.pop("attention_mask")
    for _ in range(GREEDY_TOKENS):
        now = torch.cat([ids, torch.tensor([greedy], dtype=ids.dtype)], 1)
        model.model.rope_deltas = None
        logits = model(input_ids=now, attention_mask=torch.ones_like(now), use_cache=False, **inputs).logits[0, -1].float()
        first = torch.log_softmax(logits, -1) if first is None else first
        logits[suppressed] = -math.inf
        best = logits.topk(2).values.tolist()
        margin = min(margin, best[0] - best[1])
        greedy.append(int(logits.argmax()))
    return None if margin < GREEDY_MARGIN or named("<|im_end|>") in greedy else (greedy, first)


def case(model, processor, name, text, visuals, first_seed):
    seed, images, videos, metadata = first_seed, [], [], []
    for visual in visuals:
        if isinstance(visual, tuple):
            images.append(image(*visual, seed))
            seed, place = seed + 1, IMAGE
        else:
            sizes, indices = visual["sizes"], visual["indices"]
            videos.append(np.stack([np.asarray(image(*size, seed + i)) for i, size in enumerate(sizes)]))
            metadata.append(VideoMetadata(total_num_frames=len(sizes), fps=visual["fps"], frames_indices=indices.copy()))
            seed, place = seed + len(sizes), VIDEO
        text = text.replace("{}", place, 1)
    given = dict(images=images or None, videos=videos or None)
    if videos:
        given.update(video_metadata=metadata, do_sample_frames=False)
    inputs = dict(processor(text=[text], return_tensors="pt", **given))
    for resized, visual in zip(inputs.get("video_grid_thw", []), [v for v in visuals if isinstance(v, dict)]):
        assert [16 * n for n in resized[1:].tolist()] == list(visual["sizes"][0])[::-1], "frames must not be resized"
    ids = inputs["input_ids"]
    grids = {k: v for k, v in inputs.items() if "grid" in k}
    positions, _ = model.model.get_rope_index(ids, **grids)
    continuation = clear_continuation(model, processor, inputs)
    if not continuation:
        return None
    greedy, first = continuation
    return dict(
        name=name, seed=first_seed, visuals=[dict(sizes=[v]) if isinstance(v, tuple) else v for v in visuals], text=text,
        ids=ids[0].tolist(), positions=positions[:, 0].T.tolist(),
        logp=[[i, first[i].item()] for i in range(0, len(first), 9)], greedy=greedy,
    )


def cases(model, processor):
    """Each case with the first seed from which the greedy continuation is clear."""
    rows = []
    for spec in CASES:
        for attempt in range(200):
            with torch.no_grad():
                row = case(model, processor, *spec, 1 + 50 * attempt)
            if row:
                rows.append(row)
                break
        else:
            raise SystemExit(f"no clear greedy continuation for {spec[0]}")
    return rows


def sampled():
    def indices(total, of_video, **wanted):
        metadata = VideoMetadata(total_num_frames=total, fps=of_video)
        return Qwen3VLVideoProcessor(**{k: v for k, v in wanted.items() if k == "max_frames"}).sample_frames(
            metadata, **{k: v for k, v in wanted.items() if k != "max_frames"}
        ).tolist()

    fps = [[total, of_video, rate, most, indices(total, of_video, fps=rate, max_frames=most)] for total, of_video, rate, most in [
        (2, 30.0, 2.0, 64), (3, 30.0, 2.0, 64), (5, 1.0, 2.0, 64), (9, 10.0, 2.0, 64), (30, 30.0, 2.0, 64), (75, 10.0, 2.0, 64),
        (100, 25.0, 2.0, 64), (301, 30000 / 1001, 2.0, 64), (1801, 30.0, 2.0, 64), (1801, 30.0, 2.0, 33), (54000, 30.0, 2.0, 768),
        (240, 24.0, 0.1, 768), (240, 24.0, 3.7, 63), (240, 24.0, 60.0, 768), (61, 10.0, 2.0, 3), (115, 23.0, 2.0, 768),
    ]]
    uniform = [[total, count, indices(total, 30.0, num_frames=count)] for total, count in [
        (16, 16), (17, 16), (20, 16), (33, 16), (100, 16), (1801, 16), (100, 2), (101, 4), (9999, 32), (54000, 64), (6, 3), (12, 9),
        (95, 5), (1000, 7), (15, 8), (64, 43),
    ]]
    return dict(fps=fps, uniform=uniform)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")


def main():
    assert transformers.__version__.startswith("4.57."), "this needs transformers 4.57"
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder = root / "crates/vision/tests/fixtures/qwen3_vl"
    write(folder / "videos.json", cases(model_of(folder), processor_of(folder)))
    write(root / "crates/media/tests/fixtures/timestamped_frames.json", sampled())


if __name__ == "__main__":
    main()
