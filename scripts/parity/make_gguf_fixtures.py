"""Writes the GGUF fixtures of `crates/policy/tests`: small random models and reference results of `transformers`.

Usage: make_gguf_fixtures.py [OUT]     (default: crates/policy/tests/fixtures/gguf)

`NAME.gguf` is a model with rows of 256 values, so that every block format fits, and `NAME.json` has
  config     the file's hyperparameters, named as in a `config.json`
  sequences  token ids
  logps      log-probabilities of each sequence's tokens except the first, by `transformers` in f32 on the blocks as
             dequantized by the Python package `gguf`
The tokenizer of `qwen2` is that of `fixtures/tokenizer`, and the file's tokenizer must give its ids and texts;
`llama-bpe.json` has texts with the ids of the same vocabulary under Llama 3's pre-tokenizer.
"""
import itertools
import json
import math
import pathlib
import shutil
import sys

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize
from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

LLAMA3_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXTS = ["1234567 steps", "The lamp is 30 degrees left, isn't it?", "a  b\n\n c", "<|im_start|>user\nthink<|im_end|>"]
# Formats that numpy cannot quantize: any bytes form a valid block as long as its scales are finite.
RANDOM = {"Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
HIDDEN, FEED_FORWARD, HEADS, KV_HEADS = 256, 256, 4, 2
HEAD_DIM = HIDDEN // HEADS
# Of Qwen3, whose heads are wider than the hidden size divided by them.
WIDE_HEAD_DIM = 96


def stored(shape, kind, spread, generator):
    """A tensor as stored in the file, and its dequantized values."""
    quantized = GGMLQuantizationType[kind]
    if kind in RANDOM:
        length, size = GGML_QUANT_SIZES[quantized]
        blocks = generator.integers(0, 256, (math.prod(shape) // length, size), dtype=np.uint8)
        for at in RANDOM[kind]:
            scales = generator.normal(0, 1, (len(blocks), 1)).astype(np.float16)
            blocks[:, at : at + 2] = scales.view(np.uint8)
        # Scaled to the magnitude of weights and rounded to half precision, as stored.
        factor = spread / dequantize(blocks.reshape(shape[0], -1), quantized).std()
        for at in RANDOM[kind]:
            scales = np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16)
            blocks[:, at : at + 2] = (scales * np.float16(factor)).astype(np.float16).view(np.uint8)
        data = blocks.reshape(shape[0], -1)
    else:
        data = quantize(generator.normal(0, spread, shape).astype(np.float32), quantized)
    return data, quantized, dequantize(data, quantized).reshape(shape).astype(np.float32)


def interleaved(rows, heads):
    """Rows in the order in which llama.cpp's converter stores Llama's query and key projections."""
    return rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def halves(rows, heads):
    return rows.reshape(heads, len(rows) // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def model(architecture, layers, vocab, tied):
    sizes = dict(
        vocab_size=vocab, hidden_size=HIDDEN, intermediate_size=FEED_FORWARD, num_hidden_layers=layers,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=512, rms_norm_eps=1e-6,
        tie_word_embeddings=tied, bos_token_id=None, eos_token_id=None,
    )
    rope = dict(rope_theta=1e6, rope_type="default")
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**sizes, rope_parameters=rope)).eval()
    if architecture == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**sizes, rope_parameters=rope, head_dim=WIDE_HEAD_DIM)).eval()
    return Qwen2ForCausalLM(Qwen2Config(**sizes, rope_parameters=rope)).eval()


def write(path, architecture, kinds, vocab, tied, seed, tokenizer=None):
    """`kinds` are the formats of a layer's matrices in order, then those of the embedding and the output layer."""
    generator = np.random.default_rng(seed)
    *layer_kinds, embedding, output = kinds
    decoder = model(architecture, len(layer_kinds), vocab, tied)
    head_dim = WIDE_HEAD_DIM if architecture == "qwen3" else HEAD_DIM
    state = {}
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(len(layer_kinds))
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    if architecture == "qwen2vl":
        writer.add_rope_dimension_sections([8, 12, 12, 0])
    if architecture == "qwen3":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if architecture == "llama":
        writer.add_vocab_size(vocab)
        writer.add_rope_dimension_count(HEAD_DIM)
    if tokenizer:
        tokenizer(writer, vocab)

    def add(name, canonical, shape, kind, spread, heads=None):
        data, quantized, numbers = stored(shape, kind, spread, generator)
        writer.add_tensor(name, data, raw_dtype=quantized)
        state[canonical] = torch.from_numpy(numbers if heads is None else halves(numbers, heads))

    def add_norm(name, canonical, size=HIDDEN):
        numbers = generator.normal(1, 0.1, size).astype(np.float32)
        writer.add_tensor(name, numbers)
        state[canonical] = torch.from_numpy(numbers)

    wide = 1 / math.sqrt(HIDDEN)
    add("token_embd.weight", "model.embed_tokens.weight", (vocab, HIDDEN), embedding, wide if tied else 0.5)
    for i, in_turn in enumerate(layer_kinds):
        in_turn = itertools.cycle(in_turn.split())
        layer, stem = f"model.layers.{i}", f"blk.{i}"
        queries, kv = HEADS * head_dim, KV_HEADS * head_dim
        llama = architecture == "llama"
        add_norm(f"{stem}.attn_norm.weight", f"{layer}.input_layernorm.weight")
        for letter, rows, heads in (("q", queries, HEADS), ("k", kv, KV_HEADS), ("v", kv, None)):
            heads = heads if llama else None
            canonical = f"{layer}.self_attn.{letter}_proj"
            add(f"{stem}.attn_{letter}.weight", f"{canonical}.weight", (rows, HIDDEN), next(in_turn), wide, heads)
            if architecture.startswith("qwen2"):
                add(f"{stem}.attn_{letter}.bias", f"{canonical}.bias", (rows,), "F32", 0.2)
        if architecture == "qwen3":
            for letter in ("q", "k"):
                add_norm(f"{stem}.attn_{letter}_norm.weight", f"{layer}.self_attn.{letter}_norm.weight", head_dim)
        add(f"{stem}.attn_output.weight", f"{layer}.self_attn.o_proj.weight", (HIDDEN, queries), next(in_turn), wide)
        add_norm(f"{stem}.ffn_norm.weight", f"{layer}.post_attention_layernorm.weight")
        for ours, theirs in (("gate", "gate"), ("up", "up"), ("down", "down")):
            add(f"{stem}.ffn_{ours}.weight", f"{layer}.mlp.{theirs}_proj.weight", (HIDDEN, FEED_FORWARD), next(in_turn), wide)
    add_norm("output_norm.weight", "model.norm.weight")
    if not tied:
        add("output.weight", "lm_head.weight", (vocab, HIDDEN), output, 1.5 * wide)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    absent, unexpected = decoder.load_state_dict(state, strict=False)
    assert not unexpected and set(absent) <= {"lm_head.weight"}, (absent, unexpected)
    decoder.tie_weights()
    sequences = [torch.randint(0, vocab, (n,), generator=torch.Generator().manual_seed(seed + n)).tolist() for n in (3, 17)]
    logps = []
    with torch.no_grad():
        for ids in sequences:
            ids = torch.tensor([ids])
            logp = torch.log_softmax(decoder(input_ids=ids, use_cache=False).logits[0, :-1].float(), -1)
            logps.append(logp.gather(-1, ids[0, 1:, None])[:, 0].tolist())
    config = dict(
        vocab_size=vocab, hidden_size=HIDDEN, intermediate_size=FEED_FORWARD, num_hidden_layers=len(layer_kinds),
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=head_dim, max_position_embeddings=512,
        rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=tied,
    )
    expected = {"config": config, "sequences": sequences, "logps": logps}
    path.with_suffix(".json").write_text(json.dumps(expected) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes, log-probabilities from {min(map(min, logps)):.2f}")


def vocabulary(folder):
    """Tokens, their types and the merges of a `tokenizer.json`."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    by_id = {id: (token, TokenType.NORMAL) for token, id in tokenizer["model"]["vocab"].items()}
    for token in tokenizer["added_tokens"]:
        by_id[token["id"]] = (token["content"], TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    return [by_id[id] for id in range(len(by_id))], merges


def qwen2_tokenizer(folder):
    tokens, merges = vocabulary(folder)
    template = next(t["template"] for t in json.loads((folder / "tokenizer_config.json").read_text())["chat_template"] if t["name"] == "default")

    def add(writer, vocab):
        filled = tokens + [(f"[PAD{id}]", TokenType.UNUSED) for id in range(len(tokens), vocab)]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list([token for token, _ in filled])
        writer.add_token_types([kind for _, kind in filled])
        writer.add_token_merges(merges)
        ids = {token: id for id, (token, _) in enumerate(tokens)}
        writer.add_eos_token_id(ids["<|im_end|>"])
        writer.add_pad_token_id(ids["<|endoftext|>"])
        writer.add_bos_token_id(ids["<|endoftext|>"])
        writer.add_add_bos_token(False)
        writer.add_chat_template(template)

    return add, len(tokens)


def llama_tokenizer(folder, out):
    """The same tokens with Llama 3's rules, plus tokens that exercise them; the ids are from the package `tokenizers`."""
    tokens, merges = vocabulary(folder)
    # Grouping all digits would merge `34` first; splitting every digit would produce none of these.
    more_merges = ["3 4", "1 2", "12 3"]
    # No merge produces the last one: a piece that is itself a token is used as is.
    tokens += [(token, TokenType.NORMAL) for token in ("34", "12", "123", "\u0120steps")]
    merges += more_merges
    ids = {token: id for id, (token, _) in enumerate(tokens)}
    rules = json.loads((folder / "tokenizer.json").read_text())
    rules["model"].update(vocab=ids, merges=[merge.split(" ") for merge in merges], ignore_merges=True)
    rules["normalizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(rules))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    texts = [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids} for text in TEXTS]
    assert ids["123"] in texts[0]["ids"] and ids["\u0120steps"] in texts[0]["ids"], texts[0]
    (out / "llama-bpe.json").write_text(json.dumps(texts) + "\n")

    def add(writer, vocab):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("llama-bpe")
        writer.add_token_list([token for token, _ in tokens])
        writer.add_token_types([kind for _, kind in tokens])
        writer.add_token_merges(merges)
        writer.add_eos_token_id(ids["<|im_end|>"])

    return add, len(tokens)


def main():
    here = pathlib.Path(__file__).resolve().parents[2]
    fixtures = here / "crates/policy/tests/fixtures"
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else fixtures / "gguf"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    torch.set_num_threads(1)
    add, tokens = qwen2_tokenizer(fixtures / "tokenizer")
    write(out / "qwen2.gguf", "qwen2", ["Q4_K Q6_K Q8_0", "Q4_0", None], tokens + 6, True, 1, add)
    write(out / "qwen2vl.gguf", "qwen2vl", ["Q5_K Q5_0 Q4_1 Q5_1", "F16", "BF16"], 64, False, 2)
    write(out / "qwen3.gguf", "qwen3", ["Q8_0 Q4_0 Q5_0", "F16", None], 64, True, 4)
    add, tokens = llama_tokenizer(fixtures / "tokenizer", out)
    write(out / "llama.gguf", "llama", ["Q4_K", "Q8_0", "Q6_K"], tokens, False, 3, add)


if __name__ == "__main__":
    main()
