"""Writes the question files of `crates/data/tests/fixtures/multimodal`: parquet tables as Hugging Face's `datasets` and pyarrow write them.

Usage: make_question_fixtures.py [OUT]

  easyr1.parquet   `images` as a list of `datasets.Image`, from bytes; the first two are the same image
  verl.parquet     `prompt`, `images`, `reward_model`, `extra_info`; a row without images
  trl.parquet      `prompt` with typed parts, and one `image`
  types.parquet    a question and a column of every type
  variants.parquet images and other columns as views, dictionaries, lists of a fixed size and small types
  groups.parquet   five questions in row groups of two
  deep.parquet     a question and a column of lists that are nested 200 deep
"""
import datetime
import decimal
import io
import pathlib
import sys

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, Sequence, Value
from PIL import Image as PilImage


def png(color, size=(3, 2)):
    out = io.BytesIO()
    PilImage.new("RGB", size, color).save(out, "PNG")
    return out.getvalue()


def easyr1(out):
    red, blue = png("red"), png("blue")
    features = Features({
        "problem": Value("string"), "answer": Value("string"), "images": Sequence(Image()), "problem_id": Value("int64"),
        "problem_type": Value("string"), "options": Sequence(Value("string"))})
    rows = [
        {"problem": "<image><image>\nWhich is red?", "answer": "A", "images": [{"bytes": red, "path": None}, {"bytes": red, "path": "red.png"}],
         "problem_id": 7, "problem_type": "multiple choice", "options": ["A. left", "B. right"]},
        {"problem": "<image>How wide?", "answer": "3", "images": [{"bytes": blue, "path": "b.png"}],
         "problem_id": 8, "problem_type": "regression", "options": None},
        {"problem": "What is 1 + 1?", "answer": "2", "images": [], "problem_id": 9, "problem_type": "numerical", "options": None},
    ]
    Dataset.from_list(rows, features=features).to_parquet(out / "easyr1.parquet")


def verl(out):
    rows = [
        {"data_source": "geo3k", "prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": "<image>Find x."}],
         "images": [{"bytes": png("green"), "path": None}], "ability": "math", "reward_model": {"style": "rule", "ground_truth": "3"},
         "extra_info": {"index": 0, "split": "train"}},
        {"data_source": "geo3k", "prompt": [{"role": "user", "content": "Find y."}], "images": None, "ability": "math",
         "reward_model": {"style": "rule", "ground_truth": "4"}, "extra_info": {"index": 1, "split": "train"}},
    ]
    pq.write_table(pa.Table.from_pylist(rows), out / "verl.parquet", compression="zstd")


def trl(out):
    rows = [
        {"prompt": [{"role": "system", "content": [{"type": "text", "text": "Think."}]},
                    {"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "image", "text": None}, {"type": "text", "text": "Where?"}]}],
         "image": {"bytes": png("white"), "path": "w.png"}, "solution": "<answer>left</answer>", "level": 2.5},
    ]
    pq.write_table(pa.Table.from_pylist(rows), out / "trl.parquet", compression="snappy")


def columns():
    day = datetime.datetime(2026, 1, 2, 3, 4, 5)
    return {
        "int8": pa.array([1], pa.int8()), "int16": pa.array([-2], pa.int16()), "int32": pa.array([3], pa.int32()),
        "uint8": pa.array([4], pa.uint8()), "uint16": pa.array([5], pa.uint16()), "uint32": pa.array([6], pa.uint32()),
        "uint64": pa.array([2**63], pa.uint64()), "float16": pa.array([1.5], pa.float16()), "float32": pa.array([2.5], pa.float32()),
        "float64": pa.array([float("nan")], pa.float64()), "bool": pa.array([True]), "null": pa.array([None], pa.null()),
        "large_string": pa.array(["ü"], pa.large_string()), "large_binary": pa.array([b"x"], pa.large_binary()),
        "fixed_binary": pa.array([b"xy"], pa.binary(2)), "date32": pa.array([day.date()], pa.date32()), "timestamp": pa.array([day], pa.timestamp("us")),
        "timestamp_tz": pa.array([day], pa.timestamp("ms", "UTC")), "time": pa.array([day.time()], pa.time64("us")),
        "duration": pa.array([datetime.timedelta(seconds=1)], pa.duration("ms")), "decimal": pa.array([decimal.Decimal("1.25")], pa.decimal128(9, 2)),
        "dictionary": pa.array(["a"]).dictionary_encode(), "fixed_list": pa.array([[1, 2]], pa.list_(pa.int64(), 2)),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), "nested": pa.array([[[{"a": [{"b": 1}]}]]]),
        "large_list": pa.array([["a"]], pa.large_list(pa.string())), "empty_struct_list": pa.array([[]], pa.list_(pa.struct([("a", pa.int64())]))),
    }


def variants():
    image = {"bytes": png("red"), "path": "red.png"}
    plain = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    large = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])
    views = pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())])
    day = datetime.datetime(2026, 1, 2, 3, 4, 5, 600000)
    zone = pa.timestamp("us", "Europe/Berlin")
    texts = pa.dictionary(pa.int8(), pa.string())
    names = pa.array(["a", "b", "a"]).dictionary_encode()
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(numpy.arange(4, dtype="float32").reshape(1, 2, 2))
    return {
        "in_list": pa.array([[image]], pa.list_(plain)), "in_large_list": pa.array([[image]], pa.large_list(large)),
        "in_fixed_list": pa.array([[image]], pa.list_(plain, 1)), "in_list_view": pa.array([[image]], pa.list_view(views)),
        "alone": pa.array([image], views), "bare": pa.array([image["bytes"]], pa.binary_view()),
        "bbox": pa.array([[1.0, 2.0, 30.0, 40.5]], pa.list_(pa.float32(), 4)), "halves": pa.array([[0.5, -2.0]], pa.list_(pa.float16(), 2)),
        "boxes": pa.array([[[1, 2], [3, 4]]], pa.large_list(pa.list_(pa.int16(), 2))), "fixed_null": pa.array([None], pa.list_(pa.int8(), 2)),
        "unsigned": pa.array([[255]], pa.list_(pa.uint8())), "unsigned32": pa.array([[2**32 - 1]], pa.list_view(pa.uint32())),
        "tags": pa.ListArray.from_arrays([0, 3], names), "codes": pa.array([7]).dictionary_encode(), "in_struct": pa.array([{"a": "x", "b": 3}], pa.struct([("a", texts), ("b", pa.uint16())])),
        "prices": pa.array([[decimal.Decimal("-1.25"), None]], pa.list_(pa.decimal128(9, 2))), "whole": pa.array([decimal.Decimal("12")], pa.decimal128(20, 0)),
        "wide": pa.array([decimal.Decimal("-0.1")], pa.decimal256(60, 1)), "small": pa.array([decimal.Decimal("1.5")], pa.decimal32(5, 1)),
        "days": pa.array([[day.date(), datetime.date(1969, 12, 31), datetime.date(2024, 2, 29)]], pa.list_(pa.date32())),
        "times": pa.array([{"at": day, "zoned": day, "time": day.time()}], pa.struct([("at", pa.timestamp("ns")), ("zoned", zone), ("time", pa.time32("ms"))])),
        "uuid": pa.array([bytes(range(16))], pa.uuid()), "json": pa.array(['{"a": 1}'], pa.json_()), "bool8": pa.array([1], pa.int8()).cast(pa.bool8()),
        "tensor": tensors, "empty": pa.array([[]], pa.list_(pa.null())), "nothing": pa.array([{"a": None, "b": 1}], pa.struct([("a", pa.null()), ("b", pa.int8())])),
    }


def nested(depth):
    kind, value = pa.int64(), 1
    for _ in range(depth):
        kind, value = pa.list_(kind), [value]
    return pa.array([value], kind)


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "crates/data/tests/fixtures/multimodal"
    out.mkdir(parents=True, exist_ok=True)
    easyr1(out)
    verl(out)
    trl(out)
    question = {"problem": pa.array(["q"]), "answer": pa.array(["a"])}
    pq.write_table(pa.table(question | columns()), out / "types.parquet")
    pq.write_table(pa.table(question | variants()), out / "variants.parquet", use_deprecated_int96_timestamps=True)
    rows = [{"problem": "<image>q", "answer": i, "images": [{"bytes": png((i, 0, 0)), "path": f"{i}.png"}]} for i in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), out / "groups.parquet", row_group_size=2)
    pq.write_table(pa.table(question | {"deep": nested(200)}), out / "deep.parquet")


main()
