"""Writes `vision_lora` of `crates/grpo/tests/fixtures`: an adapter of decoder, vision tower and merger, saved by `peft`, and
the GRPO loss on the batch of `vision_loss.json` with the gradient norm of every adapter tensor.

Usage: make_vision_lora_fixtures.py [ROOT]     (default: the working directory)

The model is `crates/vision/tests/fixtures/nested`. The adapter's `expected.json` has
  cases     loss settings, and the loss, the global gradient norm and that of each tensor, by its name in the adapter's file
  logprobs  of each group's prompt tokens after the first
Everything is computed in f32.
"""
import json
import math
import pathlib
import shutil
import sys

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration

from make_vision_loss_fixtures import EPSILON, GROUPS, SETTINGS, inputs_of, logps_of, loss_of

# As embodied-r writes them for `lora_target_modules = "all-linear"`, of which PEFT must resolve every linear layer but the
# LM head.
TARGETS = (
    r"^(model\.language_model(?=\.).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    r"|model\.visual\.(blocks\.\d+\.(attn\.qkv|attn\.proj|mlp\.gate_proj|mlp\.up_proj|mlp\.down_proj)"
    r"|(merger\.mlp\.0|merger\.mlp\.2)))$"
)


def adapted_layers(model):
    return {name for name, module in model.named_modules() if hasattr(module, "lora_A")}


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder = root / "crates/vision/tests/fixtures/nested"
    out = root / "crates/grpo/tests/fixtures/vision_lora"
    batch = json.loads((root / "crates/grpo/tests/fixtures/vision_loss.json").read_text())["batch"]
    load = lambda: Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    every = get_peft_model(load(), LoraConfig(r=3, target_modules="all-linear"))
    model = get_peft_model(load(), LoraConfig(r=3, lora_alpha=6, target_modules=TARGETS))
    assert adapted_layers(model) == adapted_layers(every)
    generator = torch.Generator().manual_seed(7)
    for name, tensor in model.named_parameters():
        if "lora_" in name:
            tensor.data = torch.randn(tensor.shape, generator=generator) * (0.15 if "lora_B" in name else tensor.shape[1] ** -0.5)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompts = [inputs_of(text, images, videos, tokenizer) for text, images, videos, _ in GROUPS]
    groups = batch["groups"]
    assert [ids for ids, _ in prompts] == [group["prompt_ids"] for group in groups]
    inner = model.get_base_model()
    with torch.no_grad():
        logprobs = [logps_of(inner, tokenizer, ids, [], inputs).tolist() for ids, inputs in prompts]
    cases = []
    for settings in SETTINGS:
        model.zero_grad()
        rows = [
            (logps_of(inner, tokenizer, ids, c["ids"], inputs)[-len(c["ids"]):], c)
            for (ids, inputs), group in zip(prompts, groups) for c in group["completions"]]
        loss = loss_of(settings, rows)
        loss.backward()
        trained = [(name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad]
        norms = {name.replace(".default", ""): tensor.grad.double().norm().item() for name, tensor in trained}
        total = math.sqrt(sum(norm * norm for norm in norms.values()))
        cases.append(dict(settings=dict(settings, epsilon=EPSILON), loss=loss.item(), grad_norm=total, grad_norms=norms))
    shutil.rmtree(out, ignore_errors=True)
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    # The base model's local path is not part of the fixture.
    config = json.loads((out / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "../../../../vision/tests/fixtures/nested"
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (out / "expected.json").write_text(json.dumps(dict(cases=cases, logprobs=logprobs), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
