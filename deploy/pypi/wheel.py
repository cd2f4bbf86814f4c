#!/usr/bin/env python3
"""Writes a Python wheel that installs the program `bellwether`, and nothing else.

    wheel.py PROGRAM FOLDER --version 0.1.0 --platform manylinux_2_35_x86_64 [--sbom FILE] [--licence FILE]…

A wheel is a zip archive (PyPA's "Binary distribution format"). `maturin` writes the same one for `bindings = "bin"`, but compiles
the program itself; this takes one that is built. The same input gives the same bytes: the time of every entry is that of
SOURCE_DATE_EPOCH.
"""

import argparse
import base64
import hashlib
import os
import time
import zipfile
from pathlib import Path

NAME = "bellwether"
SUMMARY = "Production monitoring for LLM applications: run events from Kafka into exactly-once tables, rolling metrics, SQL"
EXECUTABLE = 0o100755
READABLE = 0o100644


def metadata(version: str, licences: list[Path]) -> str:
    files = "".join(f"License-File: {licence.name}\n" for licence in licences)
    return (
        f"Metadata-Version: 2.4\nName: {NAME}\nVersion: {version}\nSummary: {SUMMARY}\n"
        f"License-Expression: Apache-2.0\n{files}"
        "Classifier: Environment :: Console\nClassifier: Operating System :: POSIX :: Linux\nRequires-Python: >=3.8\n"
        "Description-Content-Type: text/markdown\n\n"
        f"This package installs one program, `{NAME}`; it has no Python code. `{NAME} demo` shows what it does.\n"
    )


def write(arguments: argparse.Namespace) -> Path:
    tag = f"py3-none-{arguments.platform}"
    info = f"{NAME}-{arguments.version}.dist-info"
    entries: list[tuple[str, bytes, int]] = [
        (f"{NAME}-{arguments.version}.data/scripts/{NAME}", arguments.program.read_bytes(), EXECUTABLE),
        (f"{info}/METADATA", metadata(arguments.version, arguments.licence).encode(), READABLE),
        (f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: {NAME}\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(), READABLE),
    ]
    entries += [(f"{info}/licenses/{file.name}", file.read_bytes(), READABLE) for file in arguments.licence]
    if arguments.sbom:
        entries.append((f"{info}/sboms/{arguments.sbom.name}", arguments.sbom.read_bytes(), READABLE))
    record = [f"{name},sha256={digest(data)},{len(data)}" for name, data, _ in entries] + [f"{info}/RECORD,,"]
    entries.append((f"{info}/RECORD", ("\n".join(record) + "\n").encode(), READABLE))

    # A zip archive knows no time before 1980.
    epoch = max(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), 315532800)
    path = arguments.folder / f"{NAME}-{arguments.version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as wheel:
        for name, data, mode in entries:
            entry = zipfile.ZipInfo(name, time.gmtime(epoch)[:6])
            entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, mode << 16, 3
            wheel.writestr(entry, data)
    return path


def digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--version", required=True)
    parser.add_argument("--platform", required=True)
    parser.add_argument("--sbom", type=Path)
    parser.add_argument("--licence", type=Path, action="append", default=[])
    print(write(parser.parse_args()))


if __name__ == "__main__":
    main()
