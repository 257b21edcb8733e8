"""Sends a run's metrics to a tracker.

    python -m embodied_r.track RUN --to wandb|trackio [--follow] [--project NAME] [--name NAME]

Training metrics get the names that Hugging Face's integrations give them: `train/reward`, `eval/accuracy`, each at its step.
RUN/track.json holds what has been sent, so that the same command sends only what is new; the last step of a run that has not
ended waits for its evaluation. The tracker's package must be installed; its own variables, such as `WANDB_MODE=offline` or
`TRACKIO_DIR`, work as usual.
"""

import argparse
import importlib
import json
import os
import re
import sys
import uuid

from embodied_r import EVENTS, events

TRACKERS = ("trackio", "wandb")
STATE = "track.json"


def metrics(event):
    """The numbers of a `step` or an `eval` event, by the names that trackers get; else none."""
    if event.get("event") not in ("step", "eval"):
        return {}
    of_run = ("step", "time_s")
    numbers = {name: value for name, value in event.items() if _is_number(value) and name not in of_run}
    named = {name if name.startswith("eval/") else f"train/{name}": value for name, value in numbers.items()}
    named["train/global_step"] = event["step"]
    return named


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def config(run):
    """The run's settings and its version, commit and machine."""
    found = {}
    try:
        import tomllib
    except ImportError:  # before Python 3.11
        tomllib = None
    settings = os.path.join(run, "settings.toml")
    if tomllib and os.path.exists(settings):
        with open(settings, "rb") as file:
            found.update(tomllib.load(file))
    environment = os.path.join(run, "environment.json")
    if os.path.exists(environment):
        with open(environment, encoding="utf-8") as file:
            found["environment"] = json.load(file)
    return found


class Sent:
    """What has been sent to each tracker: the name and the id of the run there, and its last step."""

    def __init__(self, run, tracker):
        self.path = os.path.join(run, STATE)
        self.tracker = tracker
        self.all = {}
        if os.path.exists(self.path):
            with open(self.path, encoding="utf-8") as file:
                try:
                    self.all = json.load(file)
                except ValueError as error:
                    sys.exit(f"error: {self.path}: {error}; remove it to send the run again")

    def get(self):
        return self.all.get(self.tracker)

    def set(self, state):
        self.all[self.tracker] = state
        temporary = f"{self.path}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(self.all, file, indent=2)
        os.replace(temporary, self.path)


class Wandb:
    def __init__(self, state, settings):
        import wandb

        self.run = wandb.init(project=state["project"], name=state["name"], id=state["id"], resume="allow", config=settings)

    def log(self, values, step):
        self.run.log(values, step=step)

    def finish(self):
        self.run.finish()


class Trackio:
    def __init__(self, state, settings):
        import trackio

        self.module = trackio
        trackio.init(project=state["project"], name=state["name"], resume="allow", config=settings)

    def log(self, values, step):
        self.module.log(values, step=step)

    def finish(self):
        self.module.finish()


def is_installed(tracker):
    try:
        # A folder `wandb` of offline runs imports as a module without contents.
        return hasattr(importlib.import_module(tracker), "init")
    except ImportError:
        return False


def track(run, tracker, follow=False, project=None, name=None):
    """Sends to `tracker` what is new in `run`; returns the number of steps. See the module's text."""
    if not os.path.isdir(run):
        sys.exit(f"error: `{run}` is no directory of a run")
    if not follow and not os.path.exists(os.path.join(run, EVENTS)):
        sys.exit(f"error: `{run}` has no {EVENTS}; --follow waits for it")
    sent = Sent(run, tracker)
    base = os.path.basename(os.path.abspath(run))
    new = {"project": project or "embodied-r", "name": name or base, "id": re.sub(r"\W", "-", base)[:40] + "-" + uuid.uuid4().hex[:8]}
    state = {"step": -1, **new, **(sent.get() or {})}
    for given, key in ((project, "project"), (name, "name")):
        if given and state[key] != given:
            sys.exit(f"error: {key} `{state[key]}` has this run already; remove {sent.path} to send it to `{given}` again")
    if not is_installed(tracker):
        sys.exit(f"error: `{tracker}` is not installed\nhint: pip install {tracker}")
    to, steps, waiting = None, 0, {}

    def send():
        nonlocal to, steps
        if waiting:
            to = to or {"wandb": Wandb, "trackio": Trackio}[tracker](state, config(run))
            step = waiting["train/global_step"]
            to.log(dict(waiting), step)
            state["step"] = step
            sent.set(state)
            steps += 1
            waiting.clear()

    try:
        for event in events(run, follow=follow):
            values = metrics(event)
            if values and event["step"] > state["step"]:
                # The evaluation of a step follows it.
                if waiting and waiting["train/global_step"] != event["step"]:
                    send()
                waiting.update(values)
            if event.get("event") == "end":
                send()
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
    except ValueError as error:
        sys.exit(f"error: {error}")
    finally:
        if to is not None:
            to.finish()
    return steps


def main():
    parser = argparse.ArgumentParser(
        prog="python -m embodied_r.track", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="directory of `train` or `sft`")
    parser.add_argument("--to", required=True, choices=TRACKERS, help="the tracker")
    parser.add_argument("--follow", action="store_true", help="wait for further steps until the run ends")
    parser.add_argument("--project", help="the tracker's project [default: embodied-r]")
    parser.add_argument("--name", help="the run's name there [default: the directory's]")
    args = parser.parse_args()
    steps = track(args.run, args.to, args.follow, args.project, args.name)
    print(f"sent {steps} steps to {args.to}", file=sys.stderr)


if __name__ == "__main__":
    main()
