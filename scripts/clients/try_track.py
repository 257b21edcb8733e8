"""Tries `python -m embodied_r.track` with the real trackers, offline: every number of a run has to arrive once, also of a run
that is followed while it is written, and that resumes from a checkpoint.

    pip install trackio wandb
    python scripts/clients/try_track.py [trackio|wandb ...]
"""

import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time

PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "crates/cli/python"
sys.path.insert(0, str(PACKAGE))

from embodied_r.track import metrics  # noqa: E402


def line(event, **fields):
    return json.dumps({"event": event, **fields}) + "\n"


def step(number):
    return line("step", step=number, epoch=number / 4, time_s=1e9 + number, stage=0.0, reward=number / 8, completions_per_rank=[16])


def evaluation(number):
    return line("eval", step=number, **{"eval/accuracy": 1 - 1 / (number + 1)})


LINES = [line("start", steps=6, done=0), evaluation(0), step(1), step(2), evaluation(2), line("checkpoint", step=2, folder="checkpoint-2"),
         step(3), step(4), evaluation(4), step(5), step(6), evaluation(6), line("end", step=6)]


def expected():
    """Numbers by step."""
    numbers = {}
    for event in map(json.loads, LINES):
        values = metrics(event)
        if values:
            numbers.setdefault(event["step"], {}).update(values)
    return numbers


def track(run, tracker, env, *options):
    command = [sys.executable, "-m", "embodied_r.track", str(run), "--to", tracker, *options]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def ended(process):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return errors


def trackio_numbers(run):
    from trackio.sqlite_storage import SQLiteStorage

    return by_step((row["step"], row) for row in SQLiteStorage.get_logs("embodied-r", run.name))


def wandb_numbers(run):
    from wandb.proto import wandb_internal_pb2

    rows = []
    for path in sorted(run.glob("wandb/offline-run-*/run-*.wandb")):
        for data in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                rows.append((record.history.step.num, row))
    return by_step(rows)


def records(data, head=7, block=1 << 15):
    """The records of wandb's offline file, a log of LevelDB behind a head of 7 bytes: checksum, length and kind (whole, first,
    middle, last part), within blocks."""
    at, parts = head, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def by_step(rows):
    """The numbers of a run, by step, from those of a tracker."""
    found = {}
    for number, row in rows:
        assert number not in found, f"step {number} came twice"
        found[number] = {name: value for name, value in row.items() if name.startswith(("train/", "eval/"))}
    return found


def sent_in_parts(tracker, run, env):
    """The second call sends what is new, the third nothing."""
    (run / "settings.toml").write_text("seed = 7\n")
    (run / "events.jsonl").write_text("".join(LINES[:6]))
    # Step 2 may still get its evaluation.
    assert "sent 2 steps" in ended(track(run, tracker, env))
    (run / "events.jsonl").write_text("".join(LINES))
    assert "sent 5 steps" in ended(track(run, tracker, env))
    assert "sent 0 steps" in ended(track(run, tracker, env))


def followed_over_a_resume(tracker, run, env):
    """Killed within the line of step 4, resumed from step 2."""
    follower = track(run, tracker, env, "--follow")
    path = run / "events.jsonl"

    def append(*lines):
        with path.open("a") as file:
            file.writelines(lines)
        time.sleep(0.3)

    for text in LINES[:7]:
        append(text)
    append(LINES[7][:20])
    time.sleep(2)
    os.truncate(path, sum(map(len, LINES[:6])))
    for text in LINES[6:]:
        append(text)
    ended(follower)


def attempt(tracker, read, folder):
    for how in (sent_in_parts, followed_over_a_resume):
        name = f"{tracker}-{how.__name__}"
        run = folder / name
        run.mkdir()
        env = {**os.environ, "PYTHONPATH": str(PACKAGE), "WANDB_MODE": "offline", "WANDB_DIR": str(run), "WANDB_SILENT": "true"}
        how(tracker, run, env)
        want, numbers = expected(), read(run)
        assert numbers == want, f"{name}:\n{numbers}\ninstead of\n{want}"
        print(f"{tracker}: {how.__name__.replace('_', ' ')}")


READERS = {"trackio": trackio_numbers, "wandb": wandb_numbers}

with tempfile.TemporaryDirectory() as folder:
    # Read when trackio is imported.
    os.environ["TRACKIO_DIR"] = f"{folder}/trackio"
    for name in sys.argv[1:] or READERS:
        attempt(name, READERS[name], pathlib.Path(folder))
