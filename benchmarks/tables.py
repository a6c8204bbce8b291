"""Which pages show a measured table? Writes those tables anew, from `benchmarks/results/*.json`.

    python benchmarks/tables.py            writes the pages
    python benchmarks/tables.py --check    names the pages that differ, and writes nothing

A table stands in a page of `docs/` between two comments:

    <!-- table: balancing/helmholtz, rows: equal weights; UPGrad -->
    <!-- end of table -->

`losses/torch + losses/jax` puts two tables side by side, where their rows have the same names.
Without `rows:` all rows are shown.
"""

import argparse
import functools
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
UNKNOWN = "not recorded"
MARKED = re.compile(
    r"(?P<start><!-- table: (?P<sources>[^,\n]+?)(?:, rows: (?P<rows>[^\n]+?))? -->\n)"
    r".*?(?P<end><!-- end of table -->)",
    re.DOTALL,
)


@functools.cache
def read(benchmark):
    return json.loads((RESULTS / f"{benchmark}.json").read_text(encoding="utf-8"))


def table_of(source):
    benchmark, name = source.strip().split("/")
    return read(benchmark)["tables"][name]


def shown(value, format):
    """One cell: a dash where nothing was measured."""
    if value is None:
        return "–"
    return format.format(*value) if isinstance(value, list) else format.format(value)


def by_label(table):
    """The cells of each row, as they are shown."""
    formats = [column["format"] for column in table["columns"]]
    return {
        label: [shown(value, format) for value, format in zip(cells, formats, strict=True)]
        for label, *cells in table["rows"]
    }


def side_by_side(tables, wanted=None):
    """The head and the rows of one Markdown table."""
    several = len(tables) > 1
    head = [tables[0]["label"]]
    for table in tables:
        before = f"{table['title']}: " if several else ""
        head += [before + column["name"] for column in table["columns"]]
    found = [by_label(table) for table in tables]
    labels = wanted or list(dict.fromkeys(label for rows in found for label in rows))
    rows = []
    for label in labels:
        cells = [label]
        for table, of in zip(tables, found, strict=True):
            cells += of.get(label) or ["–"] * len(table["columns"])
        rows.append(cells)
    return head, rows


def markdown(head, rows):
    for label, *cells in rows:
        if set(cells) == {"–"}:
            raise ValueError(f"No table has a row '{label}'.")
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def provenance(sources):
    """The line below a table: on what it was measured, and by which script."""
    lines = []
    for source in sources:
        table = table_of(source)
        versions = ", ".join(
            f"{name} {version or UNKNOWN}" for name, version in table["versions"].items()
        )
        machine = table["machine"] or f"machine {UNKNOWN}"
        conditions = f", {table['conditions']}" if table["conditions"] else ""
        date = table["date"] or f"date {UNKNOWN}"
        script = read(source.split("/")[0])["script"]
        said = f"{machine[0].upper()}{machine[1:]}{conditions}; {versions}; {date}; `{script}`."
        lines.append(f"*{said}*")
    return "\n".join(dict.fromkeys(lines))


def rendered(match):
    """What stands between the comments, with them."""
    sources = [source.strip() for source in match["sources"].split("+")]
    tables = [table_of(source) for source in sources]
    wanted = match["rows"] and [label.strip() for label in match["rows"].split(";")]
    title = "" if len(tables) > 1 else f"{tables[0]['title']}:\n\n"
    table = markdown(*side_by_side(tables, wanted))
    notes = "\n".join(f"- {note}" for of in tables for note in of.get("notes", ()))
    below = "\n\n".join(filter(None, [notes, provenance(sources)]))
    return f"{match['start']}\n{title}{table}\n{below}\n\n{match['end']}"


def rewritten(text):
    """The text of a page, with the tables of today's results."""
    return MARKED.sub(rendered, text)


def pages():
    """The pages that have a table."""
    found = sorted((ROOT / "docs").rglob("*.md"))
    return [page for page in found if MARKED.search(page.read_text(encoding="utf-8"))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a page differs")
    check = parser.parse_args().check
    differs = False
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if text != rewritten(text):
            differs = True
            print(f"{page.relative_to(ROOT)} {'differs' if check else 'is written anew'}")
            if not check:
                page.write_text(rewritten(text), encoding="utf-8")
    return int(check and differs)


if __name__ == "__main__":
    sys.exit(main())
