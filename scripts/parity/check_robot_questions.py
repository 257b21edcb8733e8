#!/usr/bin/env python3
"""Recomputes what `embodied-r robot questions` wrote from the raw arrays of a LeRobot data set, and compares.

    pip install numpy pyarrow
    scripts/parity/check_robot_questions.py DEMOS OUTPUT

Episodes, splits, key points, next-key-point targets, movement labels, and which options the questions have are computed
anew: splits from the seed and the episodes' numbers, key points by ARM's rule with Python's negative indices, all else
from the columns that OUTPUT/settings.json names.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MASK = (1 << 64) - 1


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def stream(words):
    state = 0x243F6A8885A308D3
    for word in words:
        state = mix(((state + 0x9E3779B97F4A7C15) & MASK) ^ mix((word + state) & MASK))
    return state


def tasks_of(demos):
    lines = demos / "meta/tasks.jsonl"
    if lines.exists():
        rows = [json.loads(line) for line in lines.read_text().splitlines() if line.strip()]
        return {row["task_index"]: row["task"] for row in rows}
    table = pq.read_table(demos / "meta/tasks.parquet").to_pydict()
    name = next(name for name in ("task", "__index_level_0__") if name in table)
    return dict(zip(table["task_index"], table[name]))


def episodes_of(demos, keys):
    tables = [pq.read_table(path) for path in sorted((demos / "data").rglob("*.parquet"))]
    names = ["episode_index", "frame_index", "task_index", *keys]
    table = pa.concat_tables([table.select(names) for table in tables]).to_pydict()
    rows = defaultdict(list)
    for index, episode in enumerate(table["episode_index"]):
        rows[episode].append(index)
    tasks = tasks_of(demos)
    for episode in sorted(rows):
        order = sorted(rows[episode], key=lambda index: table["frame_index"][index])
        columns = {key: np.array([table[key][index] for index in order], np.float64) for key in keys}
        yield episode, [tasks[table["task_index"][index]].strip() for index in order], columns


def key_points(is_open, still):
    found, buffer = [], 0
    n = len(is_open)
    for i in range(n):
        stopped = (
            buffer <= 0
            and i < n - 2
            and bool(still[i])
            and is_open[i] == is_open[i + 1] == is_open[i - 1] == is_open[i - 2]
        )
        buffer = 4 if stopped else buffer - 1
        if i != 0 and (is_open[i] != is_open[i - 1] or i == n - 1 or stopped):
            found.append(i)
    if len(found) > 1 and found[-1] - 1 == found[-2]:
        found.pop(-2)
    return found


def splits(episodes, held_out, shares, seed):
    """The split of each episode, given with the tasks of its frames, of which the first counts."""
    is_held_out = {episode for episode, tasks in episodes if held_out & {task.lower() for task in tasks}}
    result = dict.fromkeys(is_held_out, "held_out")
    others = [(episode, tasks[0]) for episode, tasks in episodes if episode not in result]
    n = len(others)
    if n < 3:
        totals = [min(n, 1), 0, max(n - 1, 0)]
    else:
        val, test = (max(1, int(np.floor(shares[split] / 100 * n + 0.5))) for split in ("val", "test"))
        test = min(test, n - 2)
        val = min(val, n - 1 - test)
        totals = [n - val - test, val, test]
    left, given, done = list(totals), [0, 0, 0], 0
    for task in sorted({task for _, task in others}):
        of_task = [episode for episode, other in others if other == task]
        for episode in sorted(of_task, key=lambda episode: (stream([seed, 1, episode]), episode)):
            done += 1
            behind = [totals[i] / n * done - given[i] if left[i] else -np.inf for i in range(3)]
            split = int(np.argmax(behind))
            left[split] -= 1
            given[split] += 1
            result[episode] = ("train", "val", "test")[split]
    return result


def movement(delta, epsilon, axes, is_compact):
    largest = np.abs(delta).max()
    parts = []
    for value, axis in zip(delta, axes):
        if value == 0 or abs(value) < epsilon:
            continue
        slightly = "slightly " if abs(value) <= 0.5 * largest else ""
        move = "" if is_compact else "move "
        parts.append(slightly + move + axis["forward" if value > 0 else "backward"])
    # Without a full command, what moves most is below epsilon.
    if not any(not part.startswith("slightly") for part in parts):
        return None
    if is_compact or len(parts) == 1:
        return ", ".join(parts)
    if len(parts) == 2:
        return " and ".join(parts)
    return ", ".join(parts[:-1]) + ", and " + parts[-1]


def coordinates(text):
    """[x, y, z], or compact x y z."""
    return [float(part) for part in text.strip("[]").replace(",", " ").split()]


def main(demos, output):
    settings = json.loads((output / "settings.json").read_text())
    columns, rule, options = settings["columns"], settings["key_points"], settings["options"]
    is_compact = settings["prompt"] == "compact"
    keys = {columns["state_key"]} | ({columns["gripper"]["key"]} if columns["gripper"] else set())
    keys = sorted(keys | ({columns["velocity_key"]} if columns["velocity_key"] else set()))
    written = [json.loads(line) for line in (output / "episodes.jsonl").read_text().splitlines()]
    episodes = list(episodes_of(demos, keys))
    assert [row["episode_index"] for row in written] == [episode for episode, _, _ in episodes]
    held_out = {task.strip().lower() for task in settings["held_out_tasks"]}
    of_frames = [(episode, tasks) for episode, tasks, _ in episodes]
    expected = splits(of_frames, held_out, settings["split"], options["seed"])
    starts = {}
    count = 0
    for row, (episode, tasks, arrays) in zip(written, episodes):
        position = arrays[columns["state_key"]][:, columns["position_dims"]] * columns["position_scale"]
        if columns["gripper"] is None:
            is_open = np.ones(len(position), bool)
        else:
            gripper = arrays[columns["gripper"]["key"]].reshape(len(position), -1)[:, columns["gripper"]["dim"]]
            is_open = gripper > rule["gripper_threshold"]
        if "joint_velocity" in rule["still"]:
            speeds = np.abs(arrays[columns["velocity_key"]]).max(axis=1)
            still = speeds <= rule["still"]["joint_velocity"]
        else:
            moved = np.linalg.norm(np.diff(position, axis=0), axis=1)
            still = np.concatenate([moved[:1], moved]) <= rule["still"]["displacement"]
        found = key_points(is_open, still)
        assert (row["task"], row["frames"]) == (tasks[0], len(position)), episode
        changes = [frame for frame in range(1, len(tasks)) if tasks[frame] != tasks[frame - 1]]
        later = [(it["frame_index"], it["task"]) for it in row.get("later_tasks", [])]
        assert later == [(frame, tasks[frame]) for frame in changes], episode
        assert row["split"] == expected[episode], (episode, row["split"], expected[episode])
        assert [point["frame"] for point in row["key_points"]] == found, (episode, row["key_points"], found)
        count += len(found)
        for frame in range(0, found[-1] if found else 0, options["stride"]):
            target = min(point for point in found if point > frame)
            starts[episode, frame] = (tasks[frame], position[frame], position[target], target)
    print(f"{len(episodes)} episodes, {count} key points and all splits agree")

    asked = defaultdict(int)
    for split in ("train", "val", "test", "held_out"):
        path = output / f"{split}.json"
        if not path.exists():
            continue
        records = json.loads(path.read_text())
        # The answers of each task, of which all options must be; those of movements are of the training questions.
        answers = defaultdict(set)
        for record in records:
            if record.get("options"):
                answer = record["options"]["ABCD".index(record["answer"])]
                answers[record["kind"], record["task"]].add(answer)
        letters = defaultdict(lambda: [0] * 4)
        for record in records:
            episode, frame, kind = record["episode_index"], record["frame_index"], record["kind"]
            task, state, target, point = starts[episode, frame]
            assert expected[episode] == split and record["task"] == task, record["Question_id"]
            assert split != "held_out" or task.lower() in held_out, record["Question_id"]
            assert record["keypoint_index"] == point, record["Question_id"]
            assert np.allclose(record["state"], state, atol=1e-6, rtol=0), record["Question_id"]
            assert np.allclose(record["target"], target, atol=1e-6, rtol=0), record["Question_id"]
            epsilon = options["movement_epsilon_m"]
            label = movement(target - state, epsilon, settings["robot"]["axis"], is_compact)
            assert record["movement"] == label, (record["Question_id"], record["movement"], label)
            asked[kind] += 1
            if not record.get("options"):
                continue
            letter = "ABCD".index(record["answer"])
            letters[kind][letter] += 1
            answer = record["options"][letter]
            if kind == "movement":
                assert answer == label, record["Question_id"]
            else:
                is_close = np.abs(np.array(coordinates(answer)) - (state if kind == "state" else target))
                assert is_close.max() <= 0.5 * 10.0 ** -settings["decimals"] + 1e-9, record["Question_id"]
                points = np.array([coordinates(option) for option in record["options"]])
                apart = np.linalg.norm(points[:, None] - points[None], axis=2)[np.triu_indices(4, 1)]
                assert apart.min() >= options["min_distance_m"] - 1e-9, record["Question_id"]
            if kind == "state" or kind == "waypoint" and options["distractors"] == "keypoints":
                assert set(record["options"]) <= answers[kind, task], record["Question_id"]
        # In blocks each letter is the answer once.
        for kind, counts in letters.items():
            is_block = kind == "state" or split == "train" or kind == "waypoint"
            if is_block and not (kind == "waypoint" and options["distractors"] == "box"):
                assert len(set(counts)) == 1, (split, kind, counts)
    print(", ".join(f"{n} {kind}" for kind, n in sorted(asked.items())), "questions agree")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
