"""Opens the tables with readers that share no code with Bellwether, and prints sums as JSON.

Usage: read.py ROOT '[{"table": "events", "name": "rows", "sum": "count(*)"}, …]'

`deltalake` lists the files of a table's newest version. `duckdb` reads them with its own Parquet reader. `pyarrow`, the Parquet
reader of pandas and most of Python, reads every value of every column; `rows_of_pyarrow` is the number of rows that it found.
"""

import json
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet
from deltalake import DeltaTable


def files_of(table: DeltaTable) -> list[str]:
    """Returns the Parquet files of the table's newest version."""
    return [str(Path(uri.removeprefix("file://"))) for uri in table.file_uris()]


def relation(table: DeltaTable) -> str:
    """Returns the relation to select from: the table's files, or no rows if it has none yet."""
    files = files_of(table)
    if not files:
        return "(SELECT {} WHERE false)".format(", ".join(f'NULL AS "{field.name}"' for field in table.schema().fields))
    listed = ", ".join("'{}'".format(name.replace("'", "''")) for name in files)
    return f"read_parquet([{listed}], hive_partitioning = false, union_by_name = true)"


def main() -> None:
    root, queries = Path(sys.argv[1]), json.loads(sys.argv[2])
    found: dict[str, dict[str, str]] = {}
    for query in queries:
        table = DeltaTable(str(root / query["table"]))
        value = duckdb.sql(f"SELECT {query['sum']} FROM {relation(table)}").fetchall()[0][0]
        found.setdefault(query["table"], {})[query["name"]] = "" if value is None else str(value)
    for name, sums in found.items():
        files = files_of(DeltaTable(str(root / name)))
        tables = [pyarrow.parquet.read_table(file, partitioning=None) for file in files]
        for table in tables:
            table.validate(full=True)
        sums["rows_of_pyarrow"] = str(sum(table.num_rows for table in tables))
    json.dump(found, sys.stdout)


main()
