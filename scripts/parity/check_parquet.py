#!/usr/bin/env python3
"""Reads every parquet file that the program writes, with pandas, `datasets` and LeRobot's aggregation.

    pip install 'pyarrow>=21' pandas datasets            # and lerobot, if it is to be LeRobot itself
    scripts/parity/check_parquet.py BINARY [FOLDER]

BINARY is `embodied-r`. Runs each command that writes parquet: `sim rooms` (the benchmarks' annotations), `sim arm` (LeRobot
data sets, v2.1 and v3.0), and `quickstart --robot` (questions in EasyR1's format, completions). With FOLDER, its files are
read too.

Without LeRobot installed, the v3.0 data set is aggregated with itself by the calls to pandas and `datasets` of
`lerobot/datasets/aggregate.py` (0.4), and the last line says so.
"""
import pathlib
import subprocess
import sys
import tempfile

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


def run(binary, *words):
    done = subprocess.run([binary, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)


def write_all(binary, folder):
    """Runs the commands, and returns the folder of the v3.0 data set."""
    size = ["--episodes", 2, "--image-size", "64x48", "--bench-frames", 0]
    run(binary, "sim", "rooms", "--rooms", 2, "--output", folder / "rooms")
    for version in ("v2.1", "v3.0"):
        format_ = f"lerobot-{version}"
        run(binary, "sim", "arm", *size, "--format", format_, "--output", folder / version)
    run(
        binary, "quickstart", "--robot", "--episodes", 2, "--examples", 6, "--output", folder / "quickstart",
        "--sft-set", "num_train_epochs=1", "--sft-set", "train_batch_size=4", "--set", "max_steps=1", "--set", "warmup_steps=0",
        "--set", "generation_batch_size=32", "--set", "dynamic_sample=false", "--set", "max_completion_length=8",
    )  # fmt: skip
    return folder / "v3.0"


def has_view(kind):
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return True
    return any(has_view(kind.field(at).type) for at in range(kind.num_fields))


def check_file(path):
    schema = pq.read_schema(path)
    assert not any(has_view(field.type) for field in schema), (path, schema)
    frame = pd.read_parquet(path)
    # A process of its own has its own cache of `datasets`.
    with tempfile.TemporaryDirectory() as cache:
        table = datasets.Dataset.from_parquet(str(path), cache_dir=cache)
        assert len(frame) == len(table) == pq.read_metadata(path).num_rows, path
        rows = [table[at] for at in range(len(table))]
    assert [row.keys() for row in rows[:1]] in ([], [dict.fromkeys(table.column_names).keys()]), path
    # The index of `meta/tasks.parquet` is a column to `datasets`.
    assert set(frame.columns) | {frame.index.name} - {None} == set(table.column_names), path
    return len(frame)


def aggregate_by_lerobot(root, out):
    try:
        from lerobot.datasets.aggregate import aggregate_datasets
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    except ImportError:
        return False
    aggregate_datasets(["local/a", "local/b"], "local/both", roots=[root, root], aggr_root=out)
    both = LeRobotDataset("local/both", root=out)
    assert len(both) == 2 * len(LeRobotDataset("local/a", root=root))
    return True


def aggregate_as_lerobot(root, out):
    """The calls of `aggregate_datasets` that read tables, for the data set and itself."""
    tasks = pd.read_parquet(root / "meta/tasks.parquet")
    both = pd.concat([tasks, tasks]).index.unique()
    both = pd.DataFrame({"task_index": range(len(both))}, index=pd.Index(both, name="task"))
    both.to_parquet(out / "tasks.parquet")
    assert pd.read_parquet(out / "tasks.parquet").equals(tasks)
    kinds = {"data": "data/chunk-*/file-*.parquet", "episodes": "meta/episodes/chunk-*/file-*.parquet"}
    for name, pattern in kinds.items():
        paths = sorted(root.glob(pattern))
        assert paths, pattern
        target = out / f"{name}.parquet"
        rows = 0
        for copy in range(2):
            for path in paths:
                frame = pd.read_parquet(path)
                if name == "data":
                    names = tasks.index.take(frame["task_index"].to_numpy())
                    frame["task_index"] = both.loc[names, "task_index"].to_numpy()
                frame["episode_index"] = frame["episode_index"] + copy * len(frame["episode_index"].unique())
                rows += len(frame)
                if target.exists():
                    frame = pd.concat([pd.read_parquet(target), frame], ignore_index=True)
                frame.to_parquet(target)
        assert len(pd.read_parquet(target)) == rows
        with tempfile.TemporaryDirectory() as cache:
            read = datasets.Dataset.from_parquet(str(target), cache_dir=cache)
            assert len(read) == rows, name


def main(binary, *more):
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        root = write_all(binary, folder)
        paths = sorted(folder.rglob("*.parquet"))
        paths += [path for given in more for path in sorted(pathlib.Path(given).rglob("*.parquet"))]
        kinds = ("rooms/", "v2.1/", "v3.0/meta/", "v3.0/data/", "quickstart/questions/", "/completions/")
        for kind in kinds:
            assert any(kind in str(path) for path in paths), f"no file of {kind}"
        rows = sum(check_file(path) for path in paths)
        print(f"{len(paths)} files, {rows} rows: pandas {pd.__version__} with pyarrow {pa.__version__} and "
              f"datasets {datasets.__version__} read them all")
        out = folder / "aggregated"
        if aggregate_by_lerobot(root, out):
            print("LeRobot aggregated the v3.0 data set with itself")
            return
        out.mkdir()
        aggregate_as_lerobot(root, out)
        print("the calls of LeRobot's aggregation read the v3.0 data set; skipped: LeRobot itself, which is not installed")


if __name__ == "__main__":
    main(*sys.argv[1:])
