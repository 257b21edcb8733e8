"""Writes the fixtures of `crates/vision/tests`: small random vision-language models and reference results of `transformers`.

Usage: make_vision_fixtures.py [OUT]     (default: crates/vision/tests/fixtures)

  resize.json        [width, height, to width, to height, CRC-32 of the bytes]: Pillow's bicubic resizing of `resize_image`
  smart_resize.json  [width, height, min_pixels, max_pixels, to width, to height]
  clip_resize.json   [frames, width, height, shortest_edge, longest_edge, cap_pixels_per_frame, to width, to height] of Qwen3-VL's videos
  nested/, flat/     Qwen2.5-VL in the format of `transformers` 5 and of the Hub
  qwen3_vl/          Qwen3-VL, with two mergers of DeepStack; images alone (videos: make_video_fixtures.py)
Each model has an `expected.json`:
    sizes      of each case's images (`image` below), which are still images or video frames; `seed` is that of the first
    grid_thw   of each image or video
    pixels     mean and standard deviation of the patches, and some of their values: [index, value]
    embedded   of the features of each image or video, level by level: [norm, dot product with sin(1), sin(2), …]
    ids        the prompt with expanded image and video tokens
    positions  3-D position ids of each token
    last_logp  log-probabilities of the whole vocabulary after the prompt
    greedy     the greedy continuation
Everything is computed in f32.
"""
import functools
import json
import math
import pathlib
import sys
import zlib

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from make_model_fixtures import flat_rope, randomized, rewrite_config, write_json

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
VOCAB = 272
GREEDY_TOKENS = 6
GREEDY_MARGIN = 5e-3
PROCESSOR = dict(
    min_pixels=3136,
    max_pixels=120 * 784,
    patch_size=14,
    temporal_patch_size=2,
    merge_size=2,
    image_mean=[0.48145466, 0.4578275, 0.40821073],
    image_std=[0.26862954, 0.26130258, 0.27577711],
    image_processor_type="Qwen2VLImageProcessor",
    processor_class="Qwen2_5_VLProcessor",
)
QWEN3_PROCESSOR = dict(
    size=dict(shortest_edge=4096, longest_edge=120 * 1024),
    patch_size=16,
    temporal_patch_size=2,
    merge_size=2,
    image_mean=[0.5, 0.5, 0.5],
    image_std=[0.5, 0.5, 0.5],
    image_processor_type="Qwen2VLImageProcessorFast",
    processor_class="Qwen3VLProcessor",
)
QWEN3_VIDEO_PROCESSOR = dict(
    size=dict(shortest_edge=4096, longest_edge=240 * 1024),
    patch_size=16,
    temporal_patch_size=2,
    merge_size=2,
    image_mean=[0.5, 0.5, 0.5],
    image_std=[0.5, 0.5, 0.5],
    processor_class="Qwen3VLProcessor",
    video_processor_type="Qwen3VLVideoProcessor",
)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Name, modality, sizes.
CASES = [
    ("least", "images", [(56, 56)]),
    ("enlarged", "images", [(11, 9)]),
    ("ribbon", "images", [(400, 24)]),
    ("tall", "images", [(30, 290)]),
    ("reduced", "images", [(640, 480)]),
    ("windows", "images", [(252, 140)]),
    ("two sizes", "images", [(252, 140), (100, 180)]),
    ("many", "images", [(60 + i, 90 - i) for i in range(32)]),
    ("video", "video", [(170, 120)] * 5),
]
SECONDS = 0.5


def image(width, height, seed):
    """Gradients, edges and some noise, in integers."""
    x, y = np.meshgrid(np.arange(width, dtype=np.int64), np.arange(height, dtype=np.int64))
    red = (3 * x + y + seed * 31) % 256
    green = ((x // 7 + y // 5 + seed) % 2) * 150 + (x * y + seed) % 64
    blue = (2 * y + (x * 7919 + y * 104729 + seed * 97) % 41 + 20) % 256
    return Image.fromarray(np.stack([red, green, blue], -1).astype(np.uint8))


def resize_image(width, height):
    x, y = np.meshgrid(np.arange(width, dtype=np.int64), np.arange(height, dtype=np.int64))
    noise = (x * 7919 + y * 104729) % 251
    return Image.fromarray(np.stack([noise, x * 5 % 256, 255 - y * 3 % 256], -1).astype(np.uint8))


def resizes():
    sizes = [(31, 17, 31, 40), (31, 17, 60, 17), (64, 48, 28, 28), (200, 100, 56, 56), (57, 91, 84, 140), (5, 7, 28, 28), (333, 222, 112, 84), (1, 9, 28, 56), (30, 290, 28, 280), (290, 30, 280, 28), (848, 480, 840, 476), (94, 102, 55, 19), (116, 112, 40, 12), (100, 92, 90, 72), (100, 92, 90, 71), (640, 360, 308, 168)]
    rows = []
    for width, height, to_width, to_height in sizes:
        resized = resize_image(width, height).resize((to_width, to_height), Image.Resampling.BICUBIC)
        rows.append([width, height, to_width, to_height, zlib.crc32(resized.tobytes())])
    return rows


def smart_resizes():
    rows = []
    limits = [(3136, 12845056), (3136, 94080), (100352, 602112), (3136, 3136)]
    sizes = [(28, 28), (1, 1), (56, 56), (42, 42), (70, 14), (640, 480), (1920, 1080), (960, 540), (848, 480), (4000, 3000), (10000, 60), (60, 10000), (98, 126), (3, 500), (2000, 10)]
    for min_pixels, max_pixels in limits:
        for width, height in sizes:
            h, w = smart_resize(height, width, 28, min_pixels, max_pixels)
            rows.append([width, height, min_pixels, max_pixels, w, h])
    return rows


def clip_resizes():
    rows = []
    limits = [(4096, 25165824), (131072, 786432), (65536, 98304)]
    clips = [(2, 96, 64), (5, 170, 120), (4, 320, 240), (9, 320, 240), (16, 250, 130), (3, 20, 31), (7, 640, 36), (2, 1000, 700), (30, 64, 64)]
    for shortest, longest in limits:
        for cap in (False, True):
            processor = Qwen3VLVideoProcessor(size=dict(shortest_edge=shortest, longest_edge=longest), cap_pixels_per_frame=cap)
            for frames, width, height in clips:
                video = torch.zeros(frames, 3, height, width, dtype=torch.uint8)
                _, h, w = processor(videos=[video], do_sample_frames=False, return_tensors="pt")["video_grid_thw"][0].tolist()
                rows.append([frames, width, height, shortest, longest, int(cap), 16 * w, 16 * h])
    return rows


def tokenizer_files(folder, processor):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "chat_template.json", {"chat_template": TEMPLATE})
    write_json(folder / "preprocessor_config.json", processor)
    return tokenizer


def config(tokenizer):
    token = tokenizer.token_to_id
    return Qwen2_5_VLConfig(
        text_config=dict(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
            vocab_size=VOCAB, max_position_embeddings=4096, eos_token_id=token("<|im_end|>"), bos_token_id=None,
            rope_parameters=dict(rope_theta=1e6, rope_type="default", mrope_section=[2, 3, 3]),
        ),
        vision_config=dict(
            depth=3, hidden_size=32, intermediate_size=40, num_heads=2, out_hidden_size=32, patch_size=14,
            spatial_merge_size=2, temporal_patch_size=2, window_size=112, fullatt_block_indexes=[1], tokens_per_second=2,
        ),
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def qwen3_config(tokenizer):
    token = tokenizer.token_to_id
    return Qwen3VLConfig(
        text_config=dict(
            hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
            vocab_size=VOCAB, max_position_embeddings=4096, eos_token_id=token("<|im_end|>"), bos_token_id=None,
            rope_parameters=dict(rope_theta=5e6, rope_type="default", mrope_section=[4, 2, 2], mrope_interleaved=True),
        ),
        # Heads of an odd multiple of 8 as the published towers', and learned positions that images have to be interpolated between.
        vision_config=dict(
            depth=4, hidden_size=48, intermediate_size=72, num_heads=2, out_hidden_size=32, patch_size=16,
            spatial_merge_size=2, temporal_patch_size=2, num_position_embeddings=49, deepstack_visual_indexes=[0, 2],
        ),
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def hub_form(settings):
    """A flat configuration with the Hub's tensor names."""
    text = settings.pop("text_config")
    for field in ("model_type", "dtype"):
        text.pop(field, None)
    settings.update({field: value for field, value in text.items() if field not in settings})
    flat_rope(settings)
    settings["rope_scaling"] = dict(type="mrope", mrope_section=[2, 3, 3])
    vision = settings["vision_config"]
    vision["in_chans"] = vision.pop("in_channels")
    vision.pop("rope_parameters", None)


def pixel_limits(processor):
    size = processor.get("size", {})
    return processor.get("min_pixels", size.get("shortest_edge")), processor.get("max_pixels", size.get("longest_edge"))


def image_processor(processor):
    return Qwen2VLImageProcessorPil(**{k: v for k, v in processor.items() if k not in ("image_processor_type", "processor_class")})


def features(tower, pixels, grid):
    """The features of each image or video: those of all its levels, level by level."""
    output = tower(pixels, grid_thw=grid)
    counts = (grid.prod(-1) // 4).tolist()
    levels = [output.pooler_output, *(getattr(output, "deepstack_features", None) or [])]
    return [torch.cat(parts) for parts in zip(*(torch.split(level, counts) for level in levels))]


def video_patches(frames, processor):
    """In the video processor's order: time, token rows and columns, patches of a token, channels, frames, pixels."""
    width, height = frames[0].size
    side, limits = processor["patch_size"], pixel_limits(processor)
    h, w = smart_resize(height, width, 2 * side, *limits)
    stack = [np.asarray(frame.resize((w, h), Image.Resampling.BICUBIC), np.float32) / 255 for frame in frames]
    stack = [(frame - np.float32(processor["image_mean"])) / np.float32(processor["image_std"]) for frame in stack]
    if len(stack) % 2:
        stack.append(stack[-1])
    array = np.stack(stack).transpose(0, 3, 1, 2)
    t, gh, gw = len(stack) // 2, h // side, w // side
    array = array.reshape(t, 2, 3, gh // 2, 2, side, gw // 2, 2, side).transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return torch.tensor(array.reshape(t * gh * gw, -1)), torch.tensor([[t, gh, gw]])


def sines(tensor):
    flat = tensor.double().flatten()
    waves = torch.sin(torch.arange(1, flat.numel() + 1, dtype=torch.float64))
    return [flat.norm().item(), (flat * waves).sum().item()]


def clear_continuation(model, tokenizer, ids, types, inputs):
    """The greedy continuation, without stop and image tokens, and the log-probabilities of its first token; `None` if a margin is small."""
    greedy, margin, first = [], math.inf, None
    for _ in range(GREEDY_TOKENS):
        now = torch.tensor([ids + greedy])
        now_types = torch.cat([types, torch.zeros(1, len(greedy), dtype=types.dtype)], 1)
        model.model.rope_deltas = None
        logits = model(input_ids=now, mm_token_type_ids=now_types, use_cache=False, **inputs).logits[0, -1].float()
        first = torch.log_softmax(logits, -1) if first is None else first
        best = logits.topk(2).values.tolist()
        margin = min(margin, best[0] - best[1])
        greedy.append(int(logits.argmax()))
    special = {tokenizer.token_to_id(token) for token in ("<|im_end|>", "<|image_pad|>", "<|video_pad|>")}
    return None if margin < GREEDY_MARGIN or set(greedy) & special else (greedy, first)


def case(model, tokenizer, processor, name, kind, sizes, first_seed):
    images = [image(w, h, first_seed + i) for i, (w, h) in enumerate(sizes)]
    if kind == "images":
        given = image_processor(processor)(images, return_tensors="pt")
        pixels, grid = given["pixel_values"].float(), given["image_grid_thw"]
        inputs = dict(pixel_values=pixels, image_grid_thw=grid)
        token, kind_id, places = "<|image_pad|>", 1, len(sizes)
    else:
        pixels, grid = video_patches(images, processor)
        inputs = dict(pixel_values_videos=pixels, video_grid_thw=grid, second_per_grid_ts=torch.tensor([2 * SECONDS]))
        token, kind_id, places = "<|video_pad|>", 2, 1
    text = "<|im_start|>user\n"
    for thw in grid.tolist():
        text += "<|vision_start|>" + token * (math.prod(thw) // 4) + "<|vision_end|>"
    text += "What is there?<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.encode(text).ids
    tensor = torch.tensor([ids])
    types = torch.where(tensor == tokenizer.token_to_id(token), kind_id, 0)
    embedded = torch.cat(features(model.model.visual, pixels, grid))
    position_inputs = {k: v for k, v in inputs.items() if "pixel" not in k}
    positions, _ = model.model.get_rope_index(tensor, mm_token_type_ids=types, **position_inputs)
    assert positions.max() == positions[:, 0, -1].max(), "text must end after the video in every version"
    continuation = clear_continuation(model, tokenizer, ids, types, inputs)
    if not continuation:
        return None
    greedy, first = continuation
    flat = pixels.flatten()
    some = [(i * 7919 + 13) % flat.numel() for i in range(24)]
    return dict(
        name=name, kind=kind, seed=first_seed, sizes=sizes, seconds=SECONDS, grid_thw=grid.tolist(),
        pixels=dict(mean=flat.double().mean().item(), std=flat.double().std().item(), some=[[i, flat[i].item()] for i in some]),
        embedded=sines(embedded), ids=ids, positions=positions[:, 0].T.tolist(), last_logp=first.tolist(), greedy=greedy,
    )


def cases(case, specs):
    """`case` of each of `specs`, with the first seed from which the greedy continuation is clear."""
    rows = []
    for spec in specs:
        for attempt in range(200):
            with torch.no_grad():
                row = case(*spec, 1 + 50 * attempt)
            if row:
                rows.append(row)
                break
        else:
            raise SystemExit(f"no clear greedy continuation for {spec[0]}")
    return rows


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "crates/vision/tests/fixtures")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "resize.json", resizes())
    write_json(out / "smart_resize.json", smart_resizes())
    write_json(out / "clip_resize.json", clip_resizes())
    for form, seed in (("nested", 11), ("flat", 12)):
        folder = out / form
        folder.mkdir(exist_ok=True)
        tokenizer = tokenizer_files(folder, PROCESSOR)
        model = randomized(Qwen2_5_VLForConditionalGeneration(config(tokenizer)), seed)
        save(model, folder)
        if form == "flat":
            rewrite_config(folder, hub_form)
            tensors = load_file(folder / "model.safetensors")
            old = {name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): tensor for name, tensor in tensors.items()}
            save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
        write_json(folder / "expected.json", cases(functools.partial(case, model, tokenizer, PROCESSOR), CASES))
    folder = out / "qwen3_vl"
    folder.mkdir(exist_ok=True)
    tokenizer = tokenizer_files(folder, QWEN3_PROCESSOR)
    write_json(folder / "video_preprocessor_config.json", QWEN3_VIDEO_PROCESSOR)
    model = randomized(Qwen3VLForConditionalGeneration(qwen3_config(tokenizer)), 13)
    save(model, folder)
    images = [spec for spec in CASES if spec[1] == "images"]
    write_json(folder / "expected.json", cases(functools.partial(case, model, tokenizer, QWEN3_PROCESSOR), images))


def save(model, folder):
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
