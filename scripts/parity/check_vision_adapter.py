"""Verifies an adapter of decoder and vision encoder, written by `embodied-r train` or `sft`, against `peft`: both must give
the same log-probabilities for prompts with images and videos.

Usage: check_vision_adapter.py EMBODIED_R BASE ADAPTER

EMBODIED_R is the binary, BASE a copy of `crates/vision/tests/fixtures/nested`, ADAPTER the adapter's folder. Run it where the
adapter's `base_model_name_or_path` resolves to BASE.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration

from make_vision_fixtures import image
from make_vision_loss_fixtures import GROUPS, inputs_of, logps_of

TOLERANCE = 1e-4


def log_probabilities(model, tokenizer, prompts):
    with torch.no_grad():
        return [logp for ids, inputs in prompts for logp in logps_of(model, tokenizer, ids, [], inputs).tolist()]


def main():
    binary, base, adapter = sys.argv[1:]
    tokenizer = Tokenizer.from_file(str(pathlib.Path(base) / "tokenizer.json"))
    prompts = [inputs_of(text, images, videos, tokenizer) for text, images, videos, _ in GROUPS]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)

        def saved(width, height, seed):
            path = folder / f"{width}-{height}-{seed}.png"
            image(width, height, seed).save(path)
            return str(path)

        sequences = [
            dict(
                ids=ids, images=[saved(*one) for one in images],
                videos=[dict(frames=[saved(w, h, seed + i) for i in range(frames)], fps=fps) for w, h, seed, frames, fps in videos])
            for (ids, _), (_, images, videos, _) in zip(prompts, GROUPS)]
        file = folder / "sequences.json"
        file.write_text(json.dumps({"sequences": sequences}))
        command = [binary, "inspect", "logprobs", "--model", adapter, "--data", file, "--json"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ours = [logp for sequence in json.loads(output)["logprobs"] for logp in sequence]
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32).eval()
    before = log_probabilities(model, tokenizer, prompts)
    adapted = PeftModel.from_pretrained(model, adapter).eval()
    layers = sum(hasattr(module, "lora_A") for _, module in adapted.named_modules())
    theirs = log_probabilities(adapted.get_base_model(), tokenizer, prompts)
    difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    effect = max(abs(a - b) for a, b in zip(before, theirs))
    print(f"{layers} adapted layers; maximum difference {difference:.2e}; maximum effect of the adapter {effect:.2f}")
    sys.exit(difference > TOLERANCE)


if __name__ == "__main__":
    main()
