"""What a benchmark has measured, as a file of the form of `benchmarks/results/*.json`.

A script says `add_argument(parser)`, and after its run `keep(args.json, ...)` for each table. The
file keeps the tables of other names, such as those of other backends. `tables.py` reads it.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

import keras


def add_argument(parser):
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the tables to this file")


def machine():
    """The processor and the cores that this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    available = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return f"{len(available(0))} cores, {models[0] if models else platform.machine()}"


def conditions():
    """How busy the machine was; a benchmark of one process adds about 1 for each of its threads."""
    return f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else None


def peak_bytes():
    """The largest memory that this process has had.

    Not `ru_maxrss`: Linux lets it begin with the peak of the process that started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def versions(*others):
    """Of Python, Keras, the backend, and other packages."""
    names = dict.fromkeys(["keras", keras.backend.backend(), "numpy", *others])
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}


def keep(path, name, *, title, label, columns, rows, packages=(), notes=()):
    """Adds one table to the file, or replaces it there; does nothing if `path` is None.

    `columns` are names and formats, `rows` lists that begin with the label of the row. A cell is a
    number, a list of numbers for one format, or None if nothing was measured. `notes` are sentences
    below the table.
    """
    if path is None:
        return
    table = {
        "title": title,
        "label": label,
        "columns": [{"name": column, "format": format} for column, format in columns.items()],
        "rows": rows,
        "machine": machine(),
        "conditions": conditions(),
        "date": datetime.date.today().isoformat(),
        "versions": versions(*packages),
    }
    table |= {"notes": list(notes)} if notes else {}
    kept = json.loads(path.read_text(encoding="utf-8"))["tables"] if path.exists() else {}
    content = {"script": f"benchmarks/{Path(sys.argv[0]).name}", "tables": kept | {name: table}}
    path.write_text(written(content), encoding="utf-8")


def rows_of_others(path, name, rows):
    """The rows of the table in the file whose labels are not among those of these rows."""
    if path is None or not path.exists():
        return []
    table = json.loads(path.read_text(encoding="utf-8"))["tables"].get(name, {"rows": []})
    labels = [row[0] for row in rows]
    return [row for row in table["rows"] if row[0] not in labels]


def written(content):
    """JSON with one row of a table in a line, so that a diff shows the rows that changed."""
    tables = []
    for name, table in content["tables"].items():
        items = []
        for key, value in table.items():
            if key in ("columns", "rows", "notes"):
                lines = ",\n    ".join(json.dumps(row, ensure_ascii=False) for row in value)
                items.append(f'   "{key}": [\n    {lines}\n   ]')
            else:
                items.append(f'   "{key}": {json.dumps(value, ensure_ascii=False)}')
        tables.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(items) + "\n  }")
    script = json.dumps(content["script"])
    return f'{{\n "script": {script},\n "tables": {{\n' + ",\n".join(tables) + "\n }\n}\n"
