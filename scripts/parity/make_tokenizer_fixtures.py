"""Writes the tokenizer fixture of `crates/policy/tests`: a small tokenizer built like Qwen2.5's, and reference
results of `transformers`.

Usage: make_tokenizer_fixtures.py [OUT]     (default: crates/policy/tests/fixtures/tokenizer)

`expected.json` has
  texts          texts with their ids, and the decoded text without special tokens
  conversations  messages rendered by each chat template, with and without the generation prompt
"""
import json
import pathlib
import shutil
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# The pre-tokenizer of Qwen2.5's tokenizer.json.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
PLAIN_ADDED = ["<tool_call>", "</tool_call>"]

CORPUS = [
    "The camera turns left and moves forward through the narrow room. It's the second door, isn't it?",
    "Question: Where is the lamp? Choices: A. left B. right C. behind D. ahead\n\nAnswer with the letter.",
    "<think>The chair is 30 degrees to the left, then we'll rotate.</think> <answer>B</answer>",
    "naïve café, schöne Grüße, 你好世界, привет, ψυχή, 12345, 3.14, e=mc²",
    "def turn(angle):\n    return angle % 360\n\n\tprint(turn(-90))\r\n",
] * 3

TEXTS = [
    "",
    " ",
    "Hello world",
    "The lamp is 30 degrees left of the camera, isn't it? WE'LL see.",
    "<|im_start|>user\n<|vision_start|><|image_pad|><|image_pad|><|vision_end|>Where?<|im_end|>\n",
    "<think>so</think>\n<answer>C</answer><|im_end|><|endoftext|>",
    "a <tool_call>{\"turn\": 90}</tool_call> b",
    "<|im_start|ok> <| im_end |> <|im_end|<|im_end|>",
    "trailing spaces   \n\n\n  and\ttabs \r\n end  ",
    "e\u0301 and \u00e9, \u1e9b\u0323, \ufb01, \u2160, A\u030a",
    "你好 мир 🌍👩\u200d🚀 \u0000 \ufeff \u3000x",
    "x" * 70,
    "3.14159 1,000,000 v2.5-VL 2³",
]

# Two chat templates with the features used by real models.
CHATML = """{%- if messages[0]['role'] == 'system' -%}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else -%}
    {{- '<|im_start|>system\\nYou describe rooms.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "assistant" and not message.tool_calls) or not (loop.first or message.role == "tool") %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
STRICT = """{% set ns = namespace(turns=0, system='') %}
{% for message in messages %}
    {% if message['role'] == 'system' %}
        {% set ns.system = message['content'].strip() %}
        {% continue %}
    {% endif %}
    {% if message['content'] is not string %}
        {{ raise_exception('text only') }}
    {% endif %}
    {% set ns.turns = ns.turns + 1 %}
{{ loop.index }}/{{ messages | length }} [{{ message['role'] | upper }}] {{ message['content'] | trim }}
    {% if '</think>' in message['content'] %}
({{ message['content'].split('</think>')[-1].lstrip('\\n') }})
    {% endif %}
{% endfor %}
{{ {'turns': ns.turns, 'system': ns.system, 'said': messages[1:]} | tojson }}
{% if tools is defined and tools is not none %}tools{% endif %}
{{ messages[::-1][0]['role'] ~ eos_token ~ (bos_token | default('-')) }}
{% if add_generation_prompt %}
go on
{% endif %}
"""
CONVERSATIONS = [
    [{"role": "user", "content": "Where is the \"lamp\"?"}],
    [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "  Grüße & <b>\n"},
        {"role": "assistant", "content": "<think>a</think>\n\n<answer>B</answer>"},
        {"role": "user", "content": "Why?"},
    ],
]


def build():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=560, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in PLAIN_ADDED])
    return tokenizer


def conversations(tokenizer):
    for messages in CONVERSATIONS:
        rendered = {}
        for name, template in (("default", CHATML), ("strict", STRICT)):
            rendered[name] = [
                tokenizer.apply_chat_template(
                    messages, chat_template=template, tokenize=False, add_generation_prompt=prompt
                )
                for prompt in (False, True)
            ]
        yield {"messages": messages, "rendered": rendered}


def main():
    here = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here / "crates/policy/tests/fixtures/tokenizer"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build(), eos_token="<|im_end|>", pad_token="<|endoftext|>", clean_up_tokenization_spaces=False
    )
    tokenizer.save_pretrained(out)
    texts = []
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        texts.append(
            {
                "text": text,
                "ids": ids,
                "kept": tokenizer.decode(ids, skip_special_tokens=False),
                "skipped": tokenizer.decode(ids, skip_special_tokens=True),
            }
        )
    expected = {"texts": texts, "conversations": list(conversations(tokenizer))}
    (out / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")

    config = json.loads((out / "tokenizer_config.json").read_text())
    config["chat_template"] = [{"name": "strict", "template": STRICT}, {"name": "default", "template": CHATML}]
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    (out / "generation_config.json").write_text(json.dumps({"eos_token_id": tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])}) + "\n")
    vocabulary = json.loads((out / "tokenizer.json").read_text())
    (out / "tokenizer.json").write_text(json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":")) + "\n")
    for path in sorted(out.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
