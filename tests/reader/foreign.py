"""Changes a table as another engine may: foreign.py TABLE STEP...

Each step opens the table again, as another process would. Prints the resulting state as JSON.
"""

import json
import sys
import uuid
from pathlib import Path

import pyarrow
import pyarrow.parquet
from deltalake import DeltaTable, Field, TableFeatures


def fill(path: str, column: str) -> None:
    """Rewrites the newest file with values of a column, as a later version of a program would write it."""
    log = Path(path) / "_delta_log"
    entries = sorted(log.glob("*.json"))
    lines = [json.loads(line) for entry in entries for line in entry.read_text().splitlines()]
    added = [line["add"] for line in lines if "add" in line][-1]
    rows = pyarrow.parquet.read_table(Path(path) / added["path"], partitioning=None)
    rows = rows.append_column(column, pyarrow.array([f"later {row}" for row in range(rows.num_rows)]))
    file = str(Path(added["path"]).parent / f"part-{uuid.uuid4()}.parquet")
    pyarrow.parquet.write_table(rows, Path(path) / file)
    size = (Path(path) / file).stat().st_size
    removed = {"path": added["path"], "deletionTimestamp": 0, "dataChange": False}
    entry = [
        {"commitInfo": {"timestamp": 0, "operation": "OPTIMIZE"}},
        {"remove": removed},
        {"add": added | {"path": file, "size": size, "dataChange": False}},
    ]
    (log / f"{len(entries):020}.json").write_text("".join(json.dumps(line) + "\n" for line in entry))


def step(path: str, name: str) -> None:
    """Takes one step."""
    table = DeltaTable(path)
    match name.split("=", 1):
        case ["optimize"]:
            table.optimize.compact()
        case ["vacuum"]:
            table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        case ["checkpoint"]:
            table.create_checkpoint()
        case ["clean-up"]:
            table.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
            table.update_incremental()
            table.create_checkpoint()
            table.cleanup_metadata()
        case ["feature", feature]:
            table.alter.add_feature(getattr(TableFeatures, feature), allow_protocol_versions_increase=True)
        case ["constraint", text]:
            table.alter.add_constraint({"theirs": text})
        case ["add-column", column]:
            table.alter.add_columns([Field(column, "string", nullable=True)])
        case ["fill", column]:
            fill(path, column)
        case ["drop-constraint"]:
            table.alter.drop_constraint("theirs")
        case _:
            raise SystemExit(f"no such step: {name}")


def main() -> None:
    """Takes all steps and prints the state of the table."""
    path = sys.argv[1]
    for name in sys.argv[2:]:
        step(path, name)
    table = DeltaTable(path)
    protocol = table.protocol()
    json.dump(
        {
            "version": table.version(),
            "files": len(table.file_uris()),
            "rows": table.count() if not protocol.reader_features else None,
            "columns": [field.name for field in table.schema().fields],
        },
        sys.stdout,
    )


main()
