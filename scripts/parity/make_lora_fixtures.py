"""Writes the adapter fixtures of `crates/policy/tests`: `peft` adapters of the model fixtures, and reference results of
the merged models.

Usage: make_lora_fixtures.py [OUT]     (default: crates/policy/tests/fixtures/lora)

Each folder of OUT is an adapter saved by `peft`, with an `expected.json`:
  model      the folder of the base model under `fixtures/models`
  sequences  token ids
  base       log-probabilities of each sequence's tokens except the first, by the base model
  merged     the same after `merge_and_unload`
"""
import json
import pathlib
import shutil
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, Qwen2_5_VLForConditionalGeneration, Qwen2ForCausalLM

CASES = {
    "list": (
        Qwen2ForCausalLM,
        "qwen2-tied",
        dict(
            r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"q_proj": 2},
            alpha_pattern={r"layers\.1\.self_attn\.v_proj": 3}, layers_to_transform=None,
        ),
    ),
    "rslora": (
        LlamaForCausalLM,
        "llama",
        dict(
            r=3, lora_alpha=5, use_rslora=True, target_modules=["embed_tokens", "k_proj", "up_proj"],
            layers_to_transform=None, modules_to_save=["lm_head"],
        ),
    ),
    "vision-language": (
        Qwen2_5_VLForConditionalGeneration,
        "qwen2_5_vl-nested",
        # The format of trainers that freeze the vision tower.
        dict(r=2, lora_alpha=4, target_modules=r"^model\.language_model(?=\.).*\.(q_proj|o_proj|gate_proj)$"),
    ),
    "one-layer": (
        Qwen2ForCausalLM,
        "qwen2-tied",
        dict(r=2, lora_alpha=16, target_modules=["o_proj"], layers_to_transform=[1]),
    ),
}


def log_probabilities(model, sequences):
    with torch.no_grad():
        for ids in sequences:
            ids = torch.tensor([ids])
            logp = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0, :-1].float(), -1)
            yield logp.gather(-1, ids[0, 1:, None])[:, 0].tolist()


def main():
    here = pathlib.Path(__file__).resolve().parents[2]
    fixtures = here / "crates/policy/tests/fixtures"
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else fixtures / "lora"
    shutil.rmtree(out, ignore_errors=True)
    torch.set_num_threads(1)
    for seed, (name, (kind, base, settings)) in enumerate(CASES.items()):
        folder = out / name
        generator = torch.Generator().manual_seed(seed)
        model = kind.from_pretrained(fixtures / "models" / base, dtype=torch.float32).eval()
        sequences = [torch.randint(0, 90, (n,), generator=generator).tolist() for n in (2, 19)]
        before = list(log_probabilities(model, sequences))
        adapted = get_peft_model(model, LoraConfig(**settings))
        for tensor_name, tensor in adapted.named_parameters():
            if "lora_" in tensor_name:
                tensor.data = 0.3 * torch.randn(tensor.shape, generator=generator)
            if "modules_to_save" in tensor_name:
                tensor.data += 0.1 * torch.randn(tensor.shape, generator=generator)
        adapted.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        # The base model's local path is not part of the fixture.
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = base
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        merged = list(log_probabilities(adapted.merge_and_unload().eval(), sequences))
        apart = max(abs(a - b) for one, two in zip(before, merged) for a, b in zip(one, two))
        assert apart > 0.1, (name, apart)
        expected = {"model": base, "sequences": sequences, "base": before, "merged": merged}
        (folder / "expected.json").write_text(json.dumps(expected) + "\n")
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{name}: {size} bytes, maximum difference {apart:.2f} from the base model")


if __name__ == "__main__":
    main()
