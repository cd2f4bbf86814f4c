"""Changes a table as another engine may: foreign.py TABLE STEP...

Each step opens the table again, as another process would. Prints the resulting state as JSON.
"""

import json
import sys

from deltalake import DeltaTable, TableFeatures


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
