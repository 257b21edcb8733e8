"""Writes the model fixtures of `crates/policy/tests`: small random decoders and reference results of `transformers`.

Usage: make_model_fixtures.py [OUT]     (default: crates/policy/tests/fixtures/models)

Existing folders are kept; remove one to regenerate it. Each folder of OUT is a model in Hugging Face format with an `expected.json`:
  groups         prompts with their completions, as scored by the decoder
  scores         for some temperatures: log-probabilities and entropies of all completion tokens, concatenated
  next_token     log-probabilities of the whole vocabulary after a prompt
  greedy         a prompt and its greedy continuation
  gradients      of sum(dlogps * logps) at a temperature: each tensor's norm, and its dot product with sin(1), sin(2), …;
                 `whole` has all elements of the first layer's norms over heads and query projection, if there are such norms
Everything is computed in f32 from the stored weights.
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
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

VOCAB = 96
SIZES = dict(vocab_size=VOCAB, num_hidden_layers=2, max_position_embeddings=512, eos_token_id=95, bos_token_id=None)
GREEDY_TOKENS = 12
# Minimum margin between the top two tokens of every greedy step, so that rounding cannot swap them.
GREEDY_MARGIN = 1e-2
TEMPERATURES = (1.0, 0.7)
GRADIENT_TEMPERATURE = 0.7


def rope(theta, **more):
    return dict(rope_theta=theta, rope_type="default", **more)


def randomized(model, seed):
    """Reinitializes every tensor with a spread large enough for attention and biases to matter."""
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
    """Short sequences that cover all boundary lengths."""
    return [
        {"prompt": sequence(seed, 9), "completions": [sequence(seed + 1, 5), sequence(seed + 2, 1), sequence(seed + 3, 7)]},
        {"prompt": sequence(seed + 4, 1), "completions": [sequence(seed + 5, 4)]},
        {"prompt": sequence(seed + 6, 17), "completions": [sequence(seed + 7, 3), sequence(seed + 7, 3)]},
    ]


def long_groups(seed):
    """Far beyond the pre-training length and the sliding windows below."""
    return [
        {"prompt": sequence(seed, 300), "completions": [sequence(seed + 1, 3), sequence(seed + 2, 90)]},
        {"prompt": sequence(seed + 3, 5), "completions": [sequence(seed + 4, 20)]},
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


def greedy_with_margin(model, seed, length):
    for attempt in range(100):
        prompt = sequence(seed + 1000 + attempt, length)
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
    parameters = {canonical(name): tensor for name, tensor in model.named_parameters()}
    whole = [f"model.layers.0.self_attn.{part}.weight" for part in ("q_norm", "k_norm", "q_proj")]
    whole = {name: parameters[name].grad.flatten().tolist() for name in whole if whole[0] in parameters}
    found = {"temperature": GRADIENT_TEMPERATURE, "dlogps": dlogps.tolist(), "tensors": tensors}
    return found | ({"whole": whole} if whole else {})


def expected(model, seed, is_long):
    all_groups = long_groups(seed) if is_long else groups(seed)
    with torch.no_grad():
        scores = []
        for temperature in TEMPERATURES:
            logps, entropies = token_scores(model, all_groups, temperature)
            scores.append({"temperature": temperature, "logps": logps.tolist(), "entropies": entropies.tolist()})
        prompt = all_groups[0]["prompt"]
        logits = model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1]
        next_token = {"prompt": prompt, "logps": torch.log_softmax(logits, -1).tolist()}
        continuation = greedy_with_margin(model, seed, 80 if is_long else 6)
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


def save_expected(folder, seed, is_long=False):
    """Loads the stored weights, since casting a model to 16 bits would also round its RoPE frequencies."""
    write_json(folder / "expected.json", expected(loaded(folder), seed, is_long))


def rewrite_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def flat_rope(config):
    """The Hub's format before `transformers` 5."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] != "default":
        config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.57.0"
    config.pop("layer_types", None)


def old_type(config):
    """The Hub's format, with the older key for the RoPE type."""
    flat_rope(config)
    config["rope_scaling"]["type"] = config["rope_scaling"].pop("rope_type")


def as_saved(config):
    """The format of `transformers` 5."""


def qwen2_tied(folder):
    config = Qwen2Config(
        **SIZES, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2,
        rope_parameters=rope(1e6), tie_word_embeddings=True,
    )
    save(randomized(Qwen2ForCausalLM(config), 1), folder)
    save_expected(folder, 10)


def qwen2_untied(folder, dtype, shard_size):
    config = Qwen2Config(
        **SIZES, hidden_size=48, intermediate_size=40, num_attention_heads=6, num_key_value_heads=1,
        rope_parameters=rope(1e4), tie_word_embeddings=False, rms_norm_eps=1e-5,
    )
    save(randomized(Qwen2ForCausalLM(config), 2).to(dtype), folder, max_shard_size=shard_size)
    rewrite_config(folder, flat_rope)
    save_expected(folder, 20)


def qwen2_head_dim(folder):
    config = Qwen2Config(
        **SIZES, hidden_size=32, intermediate_size=48, num_attention_heads=2, num_key_value_heads=2, head_dim=24,
        rope_parameters=rope(5e5), tie_word_embeddings=True,
    )
    save(randomized(Qwen2ForCausalLM(config), 3), folder)
    save_expected(folder, 30)


def llama(folder):
    config = LlamaConfig(
        **SIZES, hidden_size=32, intermediate_size=56, num_attention_heads=4, num_key_value_heads=4,
        rope_parameters=rope(250.0), tie_word_embeddings=False, rms_norm_eps=1e-5,
    )
    save(randomized(LlamaForCausalLM(config), 4), folder)
    save_expected(folder, 40)


def qwen3_tied(folder):
    config = Qwen3Config(
        **SIZES, hidden_size=40, intermediate_size=48, num_attention_heads=6, num_key_value_heads=2, head_dim=10,
        rope_parameters=rope(1e6), tie_word_embeddings=True,
    )
    save(randomized(Qwen3ForCausalLM(config), 13), folder)
    rewrite_config(folder, flat_rope)
    save_expected(folder, 130)


def qwen3_untied(folder):
    config = Qwen3Config(
        **SIZES, hidden_size=48, intermediate_size=40, num_attention_heads=3, num_key_value_heads=1, head_dim=24,
        rope_parameters=rope(1e4), tie_word_embeddings=False, rms_norm_eps=1e-5,
    )
    save(randomized(Qwen3ForCausalLM(config), 14).to(torch.bfloat16), folder, max_shard_size="20KB")
    save_expected(folder, 140)


def qwen2_5_vl(folder):
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
    model = randomized(Qwen2_5_VLForConditionalGeneration(config), 5)
    save(model, folder)
    tied = {"lm_head.weight"}
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    save_expected(folder, 50)


def qwen2_5_vl_flat(folder):
    """The nested model in the Hub's format."""
    shutil.copytree(folder.parent / "qwen2_5_vl-nested", folder, dirs_exist_ok=True)
    hub = {
        canonical(name).replace("model.visual.", "visual."): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(hub, folder / "model.safetensors", {"format": "pt"})

    def hub_form(config):
        text = config.pop("text_config")
        for key, value in text.items():
            config.setdefault(key, value)
        section = config["rope_parameters"]["mrope_section"]
        flat_rope(config)
        config["rope_scaling"] = {"type": "mrope", "mrope_section": section}

    rewrite_config(folder, hub_form)


def qwen3_vl(folder):
    text = dict(
        **SIZES, hidden_size=32, intermediate_size=48, num_attention_heads=3, num_key_value_heads=1, head_dim=16,
        rope_parameters=rope(1e6, mrope_section=[4, 2, 2], mrope_interleaved=True),
    )
    vision = dict(
        depth=2, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=32, patch_size=2,
        num_position_embeddings=4, deepstack_visual_indexes=[0],
    )
    config = Qwen3VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True, image_token_id=90, video_token_id=91,
        vision_start_token_id=92, vision_end_token_id=93,
    )
    save(randomized(Qwen3VLForConditionalGeneration(config), 16), folder)
    save_expected(folder, 160)


def far(folder, seed, kind, rope_parameters, form, **more):
    """A model for sequences beyond its pre-training length or sliding windows."""
    family, causal_lm = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
    }[kind]
    sizes = dict(SIZES, hidden_size=32, intermediate_size=40, num_attention_heads=2, num_key_value_heads=1)
    config = family(**dict(sizes, rope_parameters=rope_parameters, **more))
    save(randomized(causal_lm(config), seed).to(torch.bfloat16), folder)
    rewrite_config(folder, form)
    save_expected(folder, 10 * seed, is_long=True)


SCALED = dict(rope_theta=1e4, original_max_position_embeddings=64)
LLAMA3 = dict(SCALED, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
YARN = dict(SCALED, rope_type="yarn", factor=4.0)
YARN_TUNED = dict(YARN, truncate=False, attention_factor=1.3, beta_fast=8.0, beta_slow=0.5)
LINEAR = dict(rope_theta=1e4, rope_type="linear", factor=2.5)

FIXTURES = {
    "qwen2-tied": qwen2_tied,
    "qwen2-untied-sharded-bfloat16": lambda folder: qwen2_untied(folder, torch.bfloat16, "20KB"),
    "qwen2-untied-sharded-float16": lambda folder: qwen2_untied(folder, torch.float16, "30KB"),
    "qwen2-head-dim": qwen2_head_dim,
    "qwen3-tied": qwen3_tied,
    "qwen3-untied-sharded-bfloat16": qwen3_untied,
    "qwen3-yarn-window": lambda folder: far(
        folder, 15, "qwen3", YARN, flat_rope, tie_word_embeddings=True, head_dim=20, num_hidden_layers=3,
        use_sliding_window=True, sliding_window=70, max_window_layers=1,
    ),
    "llama": llama,
    "qwen2_5_vl-nested": qwen2_5_vl,
    "qwen2_5_vl-flat": qwen2_5_vl_flat,
    "qwen3_vl-nested": qwen3_vl,
    "llama-llama3": lambda folder: far(folder, 6, "llama", LLAMA3, flat_rope, tie_word_embeddings=True),
    "qwen2-yarn": lambda folder: far(folder, 7, "qwen2", YARN, old_type, tie_word_embeddings=True),
    "qwen2-yarn-tuned": lambda folder: far(folder, 8, "qwen2", YARN_TUNED, as_saved, tie_word_embeddings=True),
    "qwen2-linear-window-off": lambda folder: far(
        folder, 9, "qwen2", LINEAR, old_type, tie_word_embeddings=True, use_sliding_window=False, sliding_window=3,
        max_window_layers=0,
    ),
    "qwen2-window-last-layer": lambda folder: far(
        folder, 11, "qwen2", rope(1e4), flat_rope, tie_word_embeddings=True, use_sliding_window=True,
        sliding_window=7, max_window_layers=1,
    ),
    "qwen2-window-layer-types": lambda folder: far(
        folder, 12, "qwen2", YARN, as_saved, tie_word_embeddings=True, num_hidden_layers=3, use_sliding_window=True,
        sliding_window=70, layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
}


def check(out):
    """Every folder, in both formats, must load in `transformers` and reproduce its scores."""
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        want = json.loads((folder / "expected.json").read_text())
        with torch.no_grad():
            logps, _ = token_scores(loaded(folder), want["groups"], 1.0)
        apart = (logps - torch.tensor(want["scores"][0]["logps"])).abs().max().item()
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{folder.name}: {size} bytes, maximum difference {apart:.1e} after reload")
        assert apart < 1e-6


def main():
    here = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here / "crates/policy/tests/fixtures/models"
    torch.set_num_threads(1)
    for name, make in FIXTURES.items():
        if not (out / name).exists():
            (out / name).mkdir(parents=True)
            make(out / name)
    check(out)


if __name__ == "__main__":
    main()
