"""Writes `crates/data/tests/fixtures/columns/float16.parquet` with pyarrow: columns that polars does not read as numbers.

Usage: make_column_fixtures.py [OUT]
"""
import pathlib
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def main(out="crates/data/tests/fixtures/columns"):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    halves = np.array([[0.1, 1.0], [2.0, 65504.0]], np.float16)
    table = pa.table({
        "scalar": pa.array(np.array([0.5, -2.0], np.float16)),
        "list": pa.array(list(halves), pa.list_(pa.float16(), 2)),
        "bytes": pa.array([b"ab", b"cd"], pa.binary(2)),
    })
    pq.write_table(table, out / "float16.parquet")


if __name__ == "__main__":
    main(*sys.argv[1:])
