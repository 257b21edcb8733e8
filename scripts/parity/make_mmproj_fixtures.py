"""Converts a folder of Qwen2.5-VL or Qwen3-VL to llama.cpp's format: GGUF files of the decoder and the vision tower (mmproj).

Usage: make_mmproj_fixtures.py [FOLDER OUT [FORMAT]]
       (default: of crates/vision/tests/fixtures, `flat` to `gguf` and `qwen3_vl` to `qwen3_vl_gguf`, in F32)

Names come from the Python package `gguf`; keys, shapes and the split of the patch embedding into two frames follow
llama.cpp's converter for `qwen2vl` with `qwen2.5vl_merger` and for `qwen3vl` with `qwen3vl_merger`, which has no limits on
pixels in the latter. Results in F32 must match the folder's `expected.json`; other formats (F16, BF16, Q8_0, …) are used
for matrices whose rows are a multiple of their block size.
"""
import json
import math
import pathlib
import sys

import numpy as np
from gguf import MODEL_ARCH, MODEL_TENSOR, GGMLQuantizationType, GGUFWriter, VisionProjectorType, get_tensor_name_map
from gguf.constants import GGML_QUANT_SIZES, MODEL_ARCH_NAMES, TENSOR_NAMES
from gguf.quants import quantize
from safetensors.torch import load_file

from make_gguf_fixtures import TokenType, vocabulary
from make_vision_fixtures import pixel_limits


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


def is_qwen3(config):
    return config["model_type"].startswith("qwen3_vl")


def decoder(folder, out, config, tensors, kind):
    arch = MODEL_ARCH.QWEN3VL if is_qwen3(config) else MODEL_ARCH.QWEN2VL
    writer = GGUFWriter(out, MODEL_ARCH_NAMES[arch])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_sections([*config["rope_scaling"]["mrope_section"], 0])
    if is_qwen3(config):
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
        writer.add_num_deepstack_layers(len(config["vision_config"]["deepstack_visual_indexes"]))
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
    names = get_tensor_name_map(arch, config["num_hidden_layers"])
    for name, tensor in tensors.items():
        if not name.startswith("visual."):
            add(writer, renamed(names, name), tensor.float().numpy(), kind)
    finish(writer)


def tower(folder, out, config, tensors, kind):
    vision, processor = config["vision_config"], read(folder / "preprocessor_config.json")
    writer = GGUFWriter(out, "clip")
    writer.add_type("mmproj")
    writer.add_clip_has_vision_encoder(True)
    stored = qwen3_tower(writer, vision) if is_qwen3(config) else qwen2_5_tower(writer, vision)
    writer.add_vision_projection_dim(config["hidden_size"])
    # Of the learned positions; Qwen2.5-VL has none.
    writer.add_vision_image_size(math.isqrt(vision.get("num_position_embeddings", 1600)) * vision["patch_size"])
    writer.add_vision_patch_size(vision["patch_size"])
    writer.add_vision_embedding_length(vision["hidden_size"])
    writer.add_vision_feed_forward_length(vision["intermediate_size"])
    writer.add_vision_block_count(vision["depth"])
    writer.add_vision_head_count(vision["num_heads"])
    writer.add_vision_attention_layernorm_eps(config["rms_norm_eps"])
    writer.add_vision_image_mean(processor["image_mean"])
    writer.add_vision_image_std(processor["image_std"])
    min_pixels, max_pixels = pixel_limits(processor)
    writer.add_vision_min_pixels(min_pixels)
    writer.add_vision_max_pixels(max_pixels)
    for name, tensor in tensors.items():
        if not name.startswith("visual."):
            continue
        numbers = tensor.float().numpy()
        if name == "visual.patch_embed.proj.weight":
            add(writer, "v.patch_embd.weight", numbers[:, :, 0], kind)
            add(writer, "v.patch_embd.weight.1", numbers[:, :, 1], kind)
        else:
            for name, part in stored(name, numbers):
                add(writer, name, part, kind)
    finish(writer)


def qwen2_5_tower(writer, vision):
    """Writes the family's own keys, and returns what names its tensors."""
    writer.add_clip_projector_type(VisionProjectorType.QWEN25VL)
    writer.add_vision_use_silu(True)
    writer.add_vision_n_wa_pattern(vision["fullatt_block_indexes"][0] + 1)
    names = get_tensor_name_map(MODEL_ARCH.MMPROJ, vision["depth"])

    def stored(name, numbers):
        if ".qkv." in name:
            parts = zip("qkv", np.split(numbers, 3))
            return [(renamed(names, name.replace("qkv", letter)), part) for letter, part in parts]
        return [(renamed(names, name), numbers)]

    return stored


def qwen3_tower(writer, vision):
    """As `qwen2_5_tower`."""
    blocks = vision["deepstack_visual_indexes"]
    writer.add_clip_projector_type(VisionProjectorType.QWEN3VL)
    writer.add_vision_use_gelu(True)
    writer.add_vision_spatial_merge_size(vision["spatial_merge_size"])
    writer.add_vision_is_deepstack_layers([block in blocks for block in range(vision["depth"])])
    names = get_tensor_name_map(MODEL_ARCH.MMPROJ, vision["depth"])
    of_merger = {"norm": MODEL_TENSOR.V_POST_NORM, "linear_fc1": MODEL_TENSOR.V_MMPROJ, "linear_fc2": MODEL_TENSOR.V_MMPROJ}
    of_deepstack = {"norm": MODEL_TENSOR.V_DS_NORM, "linear_fc1": MODEL_TENSOR.V_DS_FC1, "linear_fc2": MODEL_TENSOR.V_DS_FC2}

    def stored(name, numbers):
        *path, module, kind = name.split(".")
        if path == ["visual", "merger"]:
            stem = TENSOR_NAMES[of_merger[module]].format(bid={"linear_fc1": 0, "linear_fc2": 2}.get(module))
        elif path[:-1] == ["visual", "deepstack_merger_list"]:
            # Named by the block behind which the merger is.
            stem = TENSOR_NAMES[of_deepstack[module]].format(bid=blocks[int(path[-1])])
        else:
            return [(renamed(names, name), numbers)]
        return [(f"{stem}.{kind}", numbers)]

    return stored


def convert(folder, out, kind):
    out.mkdir(parents=True, exist_ok=True)
    config = read(folder / "config.json")
    if "text_config" in config:
        rope = config["text_config"]["rope_parameters"]
        own = {"model_type": config["model_type"], "rope_scaling": rope, "rope_theta": rope["rope_theta"]}
        config = {**config, **config["text_config"], **own}
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            tensors[name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")] = tensor
    decoder(folder, out / "model.gguf", config, tensors, kind)
    tower(folder, out / "mmproj-model.gguf", config, tensors, kind)
    print(*(f"{file}: {file.stat().st_size} bytes" for file in sorted(out.glob("*.gguf"))), sep="\n")


def main():
    if len(sys.argv) > 2:
        folder, out, *kind = sys.argv[1:]
        return convert(pathlib.Path(folder), pathlib.Path(out), *(kind or ["F32"]))
    fixtures = pathlib.Path(__file__).resolve().parents[2] / "crates/vision/tests/fixtures"
    for folder, out in (("flat", "gguf"), ("qwen3_vl", "qwen3_vl_gguf")):
        convert(fixtures / folder, fixtures / out, "F32")


if __name__ == "__main__":
    main()
