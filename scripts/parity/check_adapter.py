"""Verifies an adapter written by `embodied-r train` or `sft` against `peft`: both must give the same log-probabilities.

Usage: check_adapter.py EMBODIED_R BASE ADAPTER

EMBODIED_R is the binary, BASE the folder of a text model, ADAPTER the adapter's folder. Run it where the adapter's
`base_model_name_or_path` resolves to BASE.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-4


def log_probabilities(model, sequences):
    with torch.no_grad():
        for ids in sequences:
            ids = torch.tensor([ids])
            logp = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0, :-1].float(), -1)
            yield from logp.gather(-1, ids[0, 1:, None])[:, 0].tolist()


def main():
    binary, base, adapter = sys.argv[1:]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.config.vocab_size
    sequences = [torch.randint(0, vocabulary, (n,), generator=generator).tolist() for n in (2, 19, 40)]
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "sequences.json"
        file.write_text(json.dumps({"sequences": sequences}))
        command = [binary, "inspect", "logprobs", "--model", adapter, "--data", file, "--json"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ours = [logp for sequence in json.loads(output)["logprobs"] for logp in sequence]
    before = list(log_probabilities(model, sequences))
    theirs = list(log_probabilities(PeftModel.from_pretrained(model, adapter).eval(), sequences))
    difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    effect = max(abs(a - b) for a, b in zip(before, theirs))
    print(f"maximum difference {difference:.2e}; maximum effect of the adapter {effect:.2f}")
    sys.exit(difference > TOLERANCE)


if __name__ == "__main__":
    main()
