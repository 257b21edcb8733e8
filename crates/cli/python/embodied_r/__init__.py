"""embodied-r from Python: `events` reads a run, `python -m embodied_r` is the program, `python -m embodied_r.track` sends a
run's metrics to a tracker."""

import json
import os
import sys
import sysconfig
import time

__all__ = ["events", "program"]

EVENTS = "events.jsonl"


def program():
    """The path of the `embodied-r` binary that the wheel installed.

    Raises FileNotFoundError if it is in no scripts directory of this Python.
    """
    user = [scheme for scheme in sysconfig.get_scheme_names() if scheme.endswith("_user")]
    folders = [sysconfig.get_path("scripts"), *(sysconfig.get_path("scripts", scheme) for scheme in user)]
    # `pip install --target DIR` puts it into DIR/bin.
    folders.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin"))
    for folder in folders:
        path = os.path.join(folder, "embodied-r")
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(f"`embodied-r` is in none of {', '.join(folders)}: install the wheel again")


def events(run, follow=False, poll_s=1.0):
    """The events of a run, as dictionaries, in order: `docs/formats.md` describes them.

    `run` is the directory of `train` or `sft`, or its `events.jsonl`. With `follow`, waits for further events until the run's
    `end`, also over restarts: a resumed run truncates the file to its checkpoint, and the steps after it come again.

        for event in embodied_r.events("results/train/embodied-r"):
            if event["event"] == "step":
                print(event["step"], event["reward"])

    Raises FileNotFoundError without such a file, unless it follows one that is still to come, and ValueError with the line
    that is no JSON object.
    """
    path = os.fspath(run)
    if not path.endswith(".jsonl"):
        path = os.path.join(path, EVENTS)
    while follow and not os.path.exists(path):
        time.sleep(poll_s)
    # Where the last line that was read begins, and the line: if it is another one now, the file was truncated.
    start, last, number = 0, b"", 0
    while True:
        with open(path, "rb") as file:
            file.seek(start)
            if file.read(len(last)) != last:
                start, last, number = 0, b"", 0
                file.seek(0)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # the run is writing it, or was killed
                start, last, number = start + len(last), line, number + 1
                event = _parsed(line, path, number)
                yield event
                if follow and event.get("event") == "end":
                    return
        if not follow:
            return
        time.sleep(poll_s)


def _parsed(line, path, number):
    try:
        event = json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number} of {path}: {error}") from None
    if not isinstance(event, dict):
        raise ValueError(f"line {number} of {path} is no JSON object")
    return event


def _main():
    try:
        path = program()
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
    os.execv(path, [path, *sys.argv[1:]])
