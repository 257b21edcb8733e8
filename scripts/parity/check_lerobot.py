"""Verifies `crates/lerobot` against LeRobot, both ways, in the version that the installed LeRobot has.

Usage: check_lerobot.py DEMOS [FIXTURES]

DEMOS is the program of `cargo build -p embodied-r-lerobot --example demos`. LeRobot 0.4 has version 3.0 of the format,
LeRobot 0.3 version 2.1: install the one, then the other (`pip install lerobot==0.4.4`, `lerobot==0.3.3`).

1. The writer's data sets, H.264 and AV1, are read by `LeRobotDataset`: episodes, tasks, timestamps, values and frames.
2. A data set that LeRobot wrote, with a video and images in parquet files, is read by the reader, and compared with the
   raw arrays and with the frames that LeRobot decodes.

With FIXTURES the data set of 2. is kept in FIXTURES/VERSION, with its raw arrays in `expected.json`.
"""
import inspect
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from lerobot.datasets.lerobot_dataset import CODEBASE_VERSION, LeRobotDataset

FPS = 10
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
LENGTHS = [7, 12, 5, 20]
SIDE = 96
# Frames pass YUV 4:2:0 and a lossy codec; decoders convert to RGB with different rounding.
ENCODED_ERROR, DECODED_ERROR = 12.0, 2.5


def frames(dataset, key):
    """All frames as LeRobot decodes them: N, height, width, 3."""
    images = [dataset[index][key].numpy() for index in range(len(dataset))]
    return np.round(np.stack(images).transpose(0, 2, 3, 1) * 255).astype(np.uint8)


def error(a, b):
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def read(demos, root):
    """The episodes that the reader prints, and the bytes of its frames."""
    with tempfile.NamedTemporaryFile() as out:
        text = subprocess.run([demos, "read", root, out.name], check=True, capture_output=True, text=True).stdout
        return [json.loads(line) for line in text.splitlines()], np.fromfile(out.name, np.uint8)


def written_image(episode, frame):
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.stack([2 * x, 2 * y, np.full_like(x, 60 * episode)], -1)
    left, top = 4 * frame, 20 * episode
    image[(x >= left) & (x < left + 12) & (y >= top) & (y < top + 12)] = 255
    return image.astype(np.uint8)


def check_writer(demos, folder, codec):
    root = folder / codec
    subprocess.run([demos, "write", root, CODEBASE_VERSION, codec], check=True)
    dataset = LeRobotDataset("local/demos", root=root, video_backend="torchcodec")
    assert (dataset.num_episodes, len(dataset), dataset.fps) == (4, sum(LENGTHS), FPS)
    assert dataset.meta.robot_type == "panda" and dataset.meta.video_keys == [FRONT]
    assert dataset.features["observation.state"]["names"] == ["x", "y", "z"]
    row = 0
    for episode, length in enumerate(LENGTHS):
        for frame in range(length):
            item = dataset[row]
            state = [episode + frame / 8 + axis / 64 for axis in range(3)]
            assert item["observation.state"].tolist() == state and item["action"].item() == frame % 2
            assert item["timestamp"].item() == np.float32(frame / FPS)
            assert (item["episode_index"], item["frame_index"], item["index"]) == (episode, frame, row)
            assert item["task"] == ["push the button", "lift the lid"][episode % 2]
            row += 1
    theirs = frames(dataset, FRONT)
    images = np.stack([written_image(e, f) for e, length in enumerate(LENGTHS) for f in range(length)])
    ours = read(demos, root)[1].reshape(theirs.shape)
    per_frame = [error(a, b) for a, b in zip(theirs, images)]
    assert max(per_frame) < ENCODED_ERROR and error(ours, theirs) < DECODED_ERROR
    # The frame is the right one: its neighbours are farther away.
    assert all(error(theirs[i], images[i]) < error(theirs[i], images[j]) for i in range(len(images)) for j in (i - 1,) if j >= 0)
    stats = dataset.meta.stats
    assert np.allclose(stats["observation.state"]["max"], np.max([dataset[i]["observation.state"].numpy() for i in range(row)], 0))
    assert np.allclose(stats[FRONT]["mean"].ravel(), images.reshape(-1, 3).mean(0) / 255, atol=1e-6)
    print(f"{CODEBASE_VERSION} {codec}: LeRobot reads {dataset.num_episodes} episodes, {row} frames: values, times and tasks are "
          f"equal, mean error of frames {np.mean(per_frame):.2f} of 255 to the written, {error(ours, theirs):.2f} to ours")


def raw(rng, length):
    return {"observation.state": rng.normal(size=(length, 3)).astype(np.float32), "action": rng.normal(size=(length, 2)).astype(np.float32)}


def lerobot_set(root):
    """A data set that LeRobot writes: its raw arrays and images."""
    features = {
        "observation.state": {"dtype": "float32", "shape": (3,), "names": {"motors": ["x", "y", "z"]}},
        "action": {"dtype": "float32", "shape": (2,), "names": None},
        FRONT: {"dtype": "video", "shape": (64, 64, 3), "names": ["height", "width", "channels"]},
        WRIST: {"dtype": "image", "shape": (16, 24, 3), "names": ["height", "width", "channels"]},
    }
    dataset = LeRobotDataset.create("local/demos", FPS, features, root=root, robot_type="so100", use_videos=True)
    rng = np.random.default_rng(0)
    takes_task = "task" in inspect.signature(dataset.add_frame).parameters
    episodes = []
    for episode, (length, task) in enumerate([(5, "push"), (8, "lift"), (3, "push")]):
        arrays = raw(rng, length)
        gray = 40 + 60 * episode + 7 * np.arange(length)
        for frame in range(length):
            images = {FRONT: np.full((64, 64, 3), gray[frame], np.uint8), WRIST: np.full((16, 24, 3), gray[frame], np.uint8)}
            images[WRIST][:, :, 2] = 7
            item = {key: values[frame] for key, values in arrays.items()} | images
            if takes_task:
                dataset.add_frame(item, task=task)
            else:
                dataset.add_frame(item | {"task": task})
        dataset.save_episode()
        values = {key: array.ravel().tolist() for key, array in arrays.items()}
        episodes.append({"task": task, "gray": gray.tolist(), "columns": values})
    if hasattr(dataset, "finalize"):
        dataset.finalize()
    shutil.rmtree(root / "images", ignore_errors=True)
    return episodes


def check_reader(demos, folder, fixtures):
    root = folder / "theirs"
    expected = lerobot_set(root)
    if fixtures:
        kept = pathlib.Path(fixtures) / CODEBASE_VERSION
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(root, kept)
        (kept / "expected.json").write_text(json.dumps(expected) + "\n")
    episodes, pixels = read(demos, root)
    assert len(episodes) == len(expected)
    for episode, raw_episode in zip(episodes, expected):
        length = len(raw_episode["gray"])
        assert episode["task"] == raw_episode["task"]
        assert episode["timestamps"] == [float(np.float32(frame / FPS)) for frame in range(length)]
        for key, values in raw_episode["columns"].items():
            assert np.array_equal(np.float32(episode["columns"][key]), np.float32(values)), key
    dataset = LeRobotDataset("local/demos", root=root, video_backend="torchcodec")
    count = len(dataset)
    front, wrist = frames(dataset, FRONT), frames(dataset, WRIST)
    split = front.size
    assert pixels.size == split + wrist.size
    assert error(pixels[:split].reshape(front.shape), front) < DECODED_ERROR
    assert np.array_equal(pixels[split:].reshape(wrist.shape), wrist)
    print(f"{CODEBASE_VERSION} by LeRobot: the reader reads {len(episodes)} episodes, {count} frames: values, times, tasks and PNG "
          f"images are equal, mean error of video frames {error(pixels[:split].reshape(front.shape), front):.2f} of 255")


def main():
    demos, *fixtures = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for codec in ["h264", "av1"]:
            check_writer(demos, folder, codec)
        check_reader(demos, folder, fixtures[0] if fixtures else None)


if __name__ == "__main__":
    main()
