"""Converts a Qwen2.5-VL folder to llama.cpp's format: GGUF files of the decoder and the vision tower (mmproj).

Usage: make_mmproj_fixtures.py [FOLDER [OUT [FORMAT]]]
       (default: the folders `flat` and `gguf` of crates/vision/tests/fixtures, F32)

Names come from the Python package `gguf`; keys, shapes and the split of the patch embedding into two frames follow
llama.cpp's converter for `qwen2vl` and `qwen2.5vl_merger`. Results in F32 must match the folder's `expected.json`; other
formats (F16, BF16, Q8_0, …) are used for matrices whose rows are a multiple of their block size.
"""
import json
import pathlib
import sys

import numpy as np
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, VisionProjectorType, get_tensor_name_map
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import quantize
from safetensors.torch import load_file

from make_gguf_fixtures import TokenType, vocabulary


def read(path):
    return json.loads(path.read_text())


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def renamed(names, name):
    stem, kind = name.rsplit(".", 1)
    return f"{names.get_name(stem)}.{kind}"


def add(writer, name, numbers, kind):
    """A tensor in the format `kind` where possible, as in llama.cpp: norms and biases stay f32."""
    kind = GGMLQuantizationType[kind]
    if numbers.ndim < 2 or numbers.shape[-1] % GGML_QUANT_SIZES[kind][0]:
        kind = GGMLQuantizationType.F32
    writer.add_tensor(name, quantize(np.ascontiguousarray(numbers), kind), raw_dtype=kind)


def decoder(folder, out, config, tensors, kind):
    writer = GGUFWriter(out, "qwen2vl")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_sections([*config["rope_scaling"]["mrope_section"], 0])
    tokens, merges = vocabulary(folder)
    if not merges:
        # The writer omits empty lists; a byte pair that occurs in no text is used instead.
        rare = tokens[255][0]
        tokens.append((rare + rare, TokenType.NORMAL))
        merges = [f"{rare} {rare}"]
    tokens += [(f"[PAD{id}]", TokenType.UNUSED) for id in range(len(tokens), config["vocab_size"])]
    ids = {token: id for id, (token, _) in enumerate(tokens)}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_chat_template(read(folder / "chat_template.json")["chat_template"])
    names = get_tensor_name_map(MODEL_ARCH.QWEN2VL, config["num_hidden_layers"])
    for name, tensor in tensors.items():
        if not name.startswith("visual."):
            add(writer, renamed(names, name), tensor.float().numpy(), kind)
    finish(writer)


def tower(folder, out, config, tensors, kind):
    vision, processor = config["vision_config"], read(folder / "preprocessor_config.json")
    full = vision["fullatt_block_indexes"]
    writer = GGUFWriter(out, "clip")
    writer.add_type("mmproj")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(VisionProjectorType.QWEN25VL)
    writer.add_vision_use_silu(True)
    writer.add_vision_n_wa_pattern(full[0] + 1)
    writer.add_vision_projection_dim(config["hidden_size"])
    writer.add_vision_image_size(560)
    writer.add_vision_patch_size(vision["patch_size"])
    writer.add_vision_embedding_length(vision["hidden_size"])
    writer.add_vision_feed_forward_length(vision["intermediate_size"])
    writer.add_vision_block_count(vision["depth"])
    writer.add_vision_head_count(vision["num_heads"])
    writer.add_vision_attention_layernorm_eps(config["rms_norm_eps"])
    writer.add_vision_image_mean(processor["image_mean"])
    writer.add_vision_image_std(processor["image_std"])
    writer.add_vision_min_pixels(processor["min_pixels"])
    writer.add_vision_max_pixels(processor["max_pixels"])
    names = get_tensor_name_map(MODEL_ARCH.MMPROJ, vision["depth"])
    for name, tensor in tensors.items():
        if not name.startswith("visual."):
            continue
        numbers = tensor.float().numpy()
        if ".qkv." in name:
            for letter, part in zip("qkv", np.split(numbers, 3)):
                add(writer, renamed(names, name.replace("qkv", letter)), part, kind)
        elif "patch_embed" in name:
            add(writer, "v.patch_embd.weight", numbers[:, :, 0], kind)
            add(writer, "v.patch_embd.weight.1", numbers[:, :, 1], kind)
        else:
            add(writer, renamed(names, name), numbers, kind)
    finish(writer)


def main():
    fixtures = pathlib.Path(__file__).resolve().parents[2] / "crates/vision/tests/fixtures"
    defaults = [fixtures / "flat", fixtures / "gguf", "F32"]
    folder, out, kind = sys.argv[1:] + defaults[len(sys.argv) - 1 :]
    folder, out = pathlib.Path(folder), pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    config = read(folder / "config.json")
    if "text_config" in config:
        rope = config["text_config"]["rope_parameters"]
        config = {**config, **config["text_config"], "rope_scaling": rope, "rope_theta": rope["rope_theta"]}
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            tensors[name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")] = tensor
    decoder(folder, out / "model.gguf", config, tensors, kind)
    tower(folder, out / "mmproj-model.gguf", config, tensors, kind)
    print(*(f"{file}: {file.stat().st_size} bytes" for file in sorted(out.glob("*.gguf"))), sep="\n")


if __name__ == "__main__":
    main()
