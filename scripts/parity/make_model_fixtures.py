"""Writes the model fixtures of `crates/policy/tests`: small random decoders and what `transformers` computes with them.

Usage: make_model_fixtures.py [OUT]     (default: crates/policy/tests/fixtures/models)

Each folder of OUT is a model in Hugging Face's layout with an `expected.json` beside it:
  groups         prompts with their completions, the form in which the decoder is scored
  scores         for some temperatures: log-probabilities and entropies of all completion tokens, end to end
  next_token     log-probabilities of the whole vocabulary after a prompt
  greedy         a prompt and the tokens that greedy decoding adds
  gradients      of sum(dlogps * logps) at a temperature: each tensor's norm, and its product with sin(1), sin(2), …
Everything is computed in f32 from the weights as they are stored.
"""
import json
import math
import pathlib
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCAB = 96
SIZES = dict(vocab_size=VOCAB, num_hidden_layers=2, max_position_embeddings=512, eos_token_id=95, bos_token_id=None)
GREEDY_TOKENS = 12
# Between the first and the second choice of every greedy step, so that rounding cannot swap them.
GREEDY_MARGIN = 1e-2
TEMPERATURES = (1.0, 0.7)
GRADIENT_TEMPERATURE = 0.7


def rope(theta, **more):
    return dict(rope_theta=theta, rope_type="default", **more)


def randomised(model, seed):
    """Draws every tensor anew, wide enough that attention and biases matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if "norm" in name:
                tensor.copy_(1 + 0.2 * noise)
            elif name.endswith("bias"):
                tensor.copy_(0.5 * noise)
            elif "embed_tokens" in name:
                tensor.copy_(noise / 2)
            else:
                tensor.copy_(1.2 * noise / math.sqrt(tensor.shape[-1]))
    return model.eval()


def sequence(seed, length):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB - 1, (length,), generator=generator).tolist()


def groups(seed):
    return [
        {"prompt": sequence(seed, 9), "completions": [sequence(seed + 1, 5), sequence(seed + 2, 1), sequence(seed + 3, 7)]},
        {"prompt": sequence(seed + 4, 1), "completions": [sequence(seed + 5, 4)]},
        {"prompt": sequence(seed + 6, 17), "completions": [sequence(seed + 7, 3), sequence(seed + 7, 3)]},
    ]


def token_scores(model, all_groups, temperature):
    logps, entropies = [], []
    for group in all_groups:
        for completion in group["completions"]:
            ids = torch.tensor([group["prompt"] + completion])
            logits = model(input_ids=ids, use_cache=False).logits[0, len(group["prompt"]) - 1 : -1].float()
            logp = torch.log_softmax(logits / temperature, -1)
            logps.append(logp.gather(-1, torch.tensor(completion)[:, None])[:, 0])
            entropies.append(-(logp.exp() * logp).sum(-1))
    return torch.cat(logps), torch.cat(entropies)


def greedy(model, prompt):
    ids = list(prompt)
    margin = math.inf
    for _ in range(GREEDY_TOKENS):
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        first, second = logits.topk(2).values.tolist()
        margin = min(margin, first - second)
        ids.append(int(logits.argmax()))
    return ids[len(prompt) :], margin


def greedy_with_margin(model, seed):
    for attempt in range(100):
        prompt = sequence(seed + 1000 + attempt, 6)
        ids, margin = greedy(model, prompt)
        if margin > GREEDY_MARGIN and 95 not in ids:
            return {"prompt": prompt, "ids": ids}
    raise SystemExit("no prompt with a clear greedy continuation")


def canonical(name):
    return name.replace("model.language_model.", "model.")


def gradients(model, all_groups):
    model.zero_grad()
    logps, _ = token_scores(model, all_groups, GRADIENT_TEMPERATURE)
    dlogps = torch.sin(torch.arange(logps.numel()) * 1.7) + 0.3
    (logps * dlogps).sum().backward()
    tensors = {}
    for name, tensor in model.named_parameters():
        if "visual" in name:
            continue
        grad = tensor.grad.double().flatten()
        waves = torch.sin(torch.arange(1, grad.numel() + 1, dtype=torch.float64))
        tensors[canonical(name)] = {"norm": grad.norm().item(), "sines": (grad * waves).sum().item()}
    return {"temperature": GRADIENT_TEMPERATURE, "dlogps": dlogps.tolist(), "tensors": tensors}


def expected(model, seed):
    all_groups = groups(seed)
    with torch.no_grad():
        scores = []
        for temperature in TEMPERATURES:
            logps, entropies = token_scores(model, all_groups, temperature)
            scores.append({"temperature": temperature, "logps": logps.tolist(), "entropies": entropies.tolist()})
        prompt = all_groups[0]["prompt"]
        logits = model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1]
        next_token = {"prompt": prompt, "logps": torch.log_softmax(logits, -1).tolist()}
        continuation = greedy_with_margin(model, seed)
    return {
        "groups": all_groups,
        "scores": scores,
        "next_token": next_token,
        "greedy": continuation,
        "gradients": gradients(model, all_groups),
    }


def write_json(path, value):
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")


def loaded(folder):
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    return globals()[kind].from_pretrained(folder, dtype=torch.float32).eval()


def save(model, folder, **options):
    model.save_pretrained(folder, **options)
    (folder / "generation_config.json").unlink(missing_ok=True)


def save_expected(folder, seed):
    """From the stored weights: a model cast to 16 bits has rounded its rotary frequencies too."""
    write_json(folder / "expected.json", expected(loaded(folder), seed))


def rewrite_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def flat_rope(config):
    """The hub's form before `transformers` 5."""
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.57.0"
    config.pop("layer_types", None)


def qwen2(out):
    model = randomised(
        Qwen2ForCausalLM(
            Qwen2Config(
                **SIZES, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2,
                rope_parameters=rope(1e6), tie_word_embeddings=True,
            )
        ),
        1,
    )
    save(model, out / "qwen2-tied")
    save_expected(out / "qwen2-tied", 10)

    config = Qwen2Config(
        **SIZES, hidden_size=48, intermediate_size=40, num_attention_heads=6, num_key_value_heads=1,
        rope_parameters=rope(1e4), tie_word_embeddings=False, rms_norm_eps=1e-5,
    )
    for dtype, shard_size in ((torch.bfloat16, "20KB"), (torch.float16, "30KB")):
        folder = out / f"qwen2-untied-sharded-{str(dtype).removeprefix('torch.')}"
        save(randomised(Qwen2ForCausalLM(config), 2).to(dtype), folder, max_shard_size=shard_size)
        rewrite_config(folder, flat_rope)
        save_expected(folder, 20)

    config = Qwen2Config(
        **SIZES, hidden_size=32, intermediate_size=48, num_attention_heads=2, num_key_value_heads=2, head_dim=24,
        rope_parameters=rope(5e5), tie_word_embeddings=True,
    )
    save(randomised(Qwen2ForCausalLM(config), 3), out / "qwen2-head-dim")
    save_expected(out / "qwen2-head-dim", 30)


def llama(out):
    config = LlamaConfig(
        **SIZES, hidden_size=32, intermediate_size=56, num_attention_heads=4, num_key_value_heads=4,
        rope_parameters=rope(250.0), tie_word_embeddings=False, rms_norm_eps=1e-5,
    )
    save(randomised(LlamaForCausalLM(config), 4), out / "llama")
    save_expected(out / "llama", 40)


def qwen2_5_vl(out):
    """One model, stored as the hub has it and as `transformers` has it in memory."""
    text = dict(
        **SIZES, hidden_size=32, intermediate_size=48, num_attention_heads=2, num_key_value_heads=1,
        rope_parameters=rope(1e6, mrope_section=[2, 3, 3]),
    )
    vision = dict(
        depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=32, patch_size=2,
        spatial_patch_size=2, window_size=8, fullatt_block_indexes=[0],
    )
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True, image_token_id=90, video_token_id=91,
        vision_start_token_id=92, vision_end_token_id=93,
    )
    model = randomised(Qwen2_5_VLForConditionalGeneration(config), 5)
    nested, flat = out / "qwen2_5_vl-nested", out / "qwen2_5_vl-flat"
    save(model, nested)
    tied = {"lm_head.weight"}
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied}
    save_file(tensors, nested / "model.safetensors", {"format": "pt"})
    save_expected(nested, 50)

    shutil.copytree(nested, flat, dirs_exist_ok=True)
    hub = {
        canonical(name).replace("model.visual.", "visual."): tensor
        for name, tensor in load_file(nested / "model.safetensors").items()
    }
    save_file(hub, flat / "model.safetensors", {"format": "pt"})

    def hub_form(config):
        text = config.pop("text_config")
        for key, value in text.items():
            config.setdefault(key, value)
        section = config["rope_parameters"]["mrope_section"]
        flat_rope(config)
        config["rope_scaling"] = {"type": "mrope", "mrope_section": section}

    rewrite_config(flat, hub_form)


def check(out):
    """Every folder, both layouts included, must load in `transformers` and give the scores beside it."""
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        want = json.loads((folder / "expected.json").read_text())
        with torch.no_grad():
            logps, _ = token_scores(loaded(folder), want["groups"], 1.0)
        apart = (logps - torch.tensor(want["scores"][0]["logps"])).abs().max().item()
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{folder.name}: {size} bytes, {apart:.1e} apart after reload")
        assert apart < 1e-6


def main():
    here = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here / "crates/policy/tests/fixtures/models"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    torch.set_num_threads(1)
    for make in (qwen2, llama, qwen2_5_vl):
        make(out)
    check(out)


if __name__ == "__main__":
    main()
