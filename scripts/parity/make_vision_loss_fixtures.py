"""Writes `vision_loss.json` of `crates/grpo/tests/fixtures`: a batch of groups with images and videos, and the GRPO loss of
`transformers`' Qwen2.5-VL on it with the gradient norm of every tensor, vision tower included.

Usage: make_vision_loss_fixtures.py [ROOT]     (default: the working directory)

The model is `crates/vision/tests/fixtures/nested`.
  visuals   of each group: images ([width, height, seed]) and videos ([width, height, seed of the first, frames, fps]);
            seeds are those of `image` in make_vision_fixtures.py
  batch     in the format of `embodied-r inspect loss`, without the images
  cases     loss settings, and the loss, the global gradient norm and that of each tensor
  logprobs  of each group's prompt tokens after the first
The loss is that of TRL's `_compute_loss` for `loss_type = "grpo"` and `"dapo"`. Everything is computed in f32.
"""
import json
import math
import pathlib
import sys

import torch
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from make_vision_fixtures import PROCESSOR, image, video_patches

IMAGE, VIDEO = "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"
# Text, images and videos. The second image of the second group is that of the first.
GROUPS = [
    ("Look: {} What is there?", [(84, 56, 1)], [], (5, 1, 9)),
    ("First {} then {} What changed?", [(56, 112, 2), (84, 56, 1)], [], (6, 4)),
    ("{} and {} Where?", [(140, 84, 3)], [(84, 56, 20, 5, 1.5)], (3, 7, 2)),
    ("Only text.", [], [], (4, 4)),
]
SETTINGS = [dict(loss_type="grpo", beta=0.04, use_bias_correction_kl=False), dict(loss_type="dapo", beta=0.0)]
EPSILON = 0.2


def inputs_of(text, images, videos, tokenizer):
    processor = Qwen2VLImageProcessorPil(**{k: v for k, v in PROCESSOR.items() if k not in ("image_processor_type", "processor_class")})
    inputs, places = {}, []
    if images:
        given = processor([image(w, h, seed) for w, h, seed in images], return_tensors="pt")
        inputs.update(pixel_values=given["pixel_values"].float(), image_grid_thw=given["image_grid_thw"])
        places += [IMAGE.replace("<|image_pad|>", "<|image_pad|>" * (math.prod(grid) // 4)) for grid in given["image_grid_thw"].tolist()]
    if videos:
        cut = [video_patches([image(w, h, seed + i) for i in range(frames)], PROCESSOR) for w, h, seed, frames, _ in videos]
        inputs.update(
            pixel_values_videos=torch.cat([patches for patches, _ in cut]), video_grid_thw=torch.cat([grid for _, grid in cut]),
            second_per_grid_ts=torch.tensor([2 / fps for *_, fps in videos]))
        places += [VIDEO.replace("<|video_pad|>", "<|video_pad|>" * (math.prod(grid[0].tolist()) // 4)) for _, grid in cut]
    for place in places:
        text = text.replace("{}", place, 1)
    return tokenizer.encode(text).ids, inputs


def logps_of(model, tokenizer, prompt, ids, inputs):
    tensor = torch.tensor([prompt + ids])
    types = torch.where(tensor == tokenizer.token_to_id("<|image_pad|>"), 1, 0) + torch.where(tensor == tokenizer.token_to_id("<|video_pad|>"), 2, 0)
    model.model.rope_deltas = None
    logits = model(input_ids=tensor, mm_token_type_ids=types, use_cache=False, **inputs).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(1, tensor[0, 1:, None])[:, 0]


def loss_of(settings, rows):
    """TRL's, over the completions of one batch: (log-probabilities, completion)."""
    losses = []
    for logps, c in rows:
        old, ref = torch.tensor(c["old_logps"]), torch.tensor(c["ref_logps"])
        ratio, advantage = (logps - old).exp(), c["advantage"]
        loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - EPSILON, 1 + EPSILON) * advantage)
        if settings["beta"]:
            kl = (ref - logps).exp() - (ref - logps) - 1
            loss = loss + settings["beta"] * kl
        losses.append(loss)
    if settings["loss_type"] == "grpo":
        return torch.stack([loss.mean() for loss in losses]).mean()
    return torch.cat(losses).sum() / sum(len(loss) for loss in losses)


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder = root / "crates/vision/tests/fixtures/nested"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(5)
    rand = lambda *shape: torch.randn(*shape, generator=generator)
    special = {token_id for token, token_id in tokenizer.get_vocab().items() if token.startswith("<|")}
    words = [i for i in range(tokenizer.get_vocab_size()) if i not in special]
    groups, logprobs, all_inputs = [], [], []
    for text, images, videos, lengths in GROUPS:
        prompt, inputs = inputs_of(text, images, videos, tokenizer)
        all_inputs.append(inputs)
        with torch.no_grad():
            logprobs.append(logps_of(model, tokenizer, prompt, [], inputs).tolist())
        completions = []
        for length in lengths:
            ids = [words[i] for i in torch.randint(0, len(words), (length,), generator=generator)]
            with torch.no_grad():
                logps = logps_of(model, tokenizer, prompt, ids, inputs)[-length:]
            completions.append(dict(
                ids=ids, advantage=rand(1).item(), old_logps=(logps + 0.2 * rand(length)).tolist(), ref_logps=(logps + 0.4 * rand(length)).tolist()))
        groups.append(dict(prompt_ids=prompt, completions=completions))
    cases = []
    for settings in SETTINGS:
        model.zero_grad()
        rows = [
            (logps_of(model, tokenizer, group["prompt_ids"], c["ids"], inputs)[-len(c["ids"]):], c)
            for group, inputs in zip(groups, all_inputs) for c in group["completions"]]
        loss = loss_of(settings, rows)
        loss.backward()
        norms = {name: tensor.grad.double().norm().item() for name, tensor in model.named_parameters()}
        total = math.sqrt(sum(norm * norm for norm in norms.values()))
        cases.append(dict(settings=dict(settings, epsilon=EPSILON), loss=loss.item(), grad_norm=total, grad_norms=norms))
    visuals = [dict(images=images, videos=videos) for _, images, videos, _ in GROUPS]
    out = root / "crates/grpo/tests/fixtures/vision_loss.json"
    out.write_text(json.dumps(dict(visuals=visuals, batch=dict(groups=groups), cases=cases, logprobs=logprobs), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
