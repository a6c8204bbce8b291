"""What the demo makes of CSV files as they are found: every column is used or dropped aloud."""

import numpy as np
import pandas as pd
import pytest

from combined_losses.demo.numbers import find_decimal, to_numbers
from combined_losses.demo.regression import make_folds
from combined_losses.demo.tables import read_table

pytestmark = pytest.mark.backend_free

A = [i % 7 + 0.5 for i in range(24)]
Y = [2.0 * i + i % 3 for i in range(24)]


def write(tmp_path, content):
    path = tmp_path / "data.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(*columns, separator=","):
    """Lines of cells, for columns of texts or numbers."""
    return [separator.join(map(str, cells)) for cells in zip(*columns, strict=True)]


def read(tmp_path, header, *columns, separator=",", **how):
    """The table of a file with these columns and the target Y, and its choices as a dict."""
    lines = [separator.join([*header, "y"]), *rows(*columns, Y, separator=separator)]
    table = read_table(write(tmp_path, "\n".join(lines) + "\n"), "y", **how)
    np.testing.assert_array_equal(table.y, Y)
    return table, dict(table.choices)


PLAIN = "\n".join(["a,y", *rows(A, Y)]) + "\n"
QUOTED = "\n".join(f'"{line}"' for line in ['a","y', *rows(A, Y, separator='","')])
COMMAS = "\n".join(["a;y", *rows(A, Y, separator=";")]).replace(".", ",") + "\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        b"\xef\xbb\xbf" + PLAIN.encode(),  # byte-order mark
        PLAIN.encode("utf-16"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\n\n \n"),  # blank lines
        PLAIN.replace(",", " , "),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "|"),
        PLAIN.replace("\n", ",,\n"),  # trailing separators
        "a,y\n" + PLAIN[4:].replace("\n", ",\n"),  # trailing separators below the header alone
        COMMAS,
        COMMAS.replace(";", "\t"),
        "sep=;\n" + COMMAS,
        QUOTED,
        QUOTED.replace(".", ","),
        "\n".join(["a,y", *rows([f"{a} %" for a in A], [f"€ {y}" for y in Y])]),
    ],
)
def test_the_same_numbers_come_from_every_dialect(tmp_path, content):
    table = read_table(write(tmp_path, content), "y")
    np.testing.assert_array_equal(table.x[:, 0], A)
    np.testing.assert_array_equal(table.y, Y)
    assert table.x.shape == (24, 1)


@pytest.mark.parametrize(
    ("cells", "separator", "decimal", "numbers"),
    [
        (["1.234,5", "1.234"], ";", ",", [1234.5, 1234]),
        (["1,234.5", "1,234"], ",", ".", [1234.5, 1234]),
        (["1 234,5", "1\u202f234"], ";", ",", [1234.5, 1234]),
        (["1'234.5", "1\u2019234"], ";", ".", [1234.5, 1234]),
        (["1,234", "5,678"], ";", ",", [1.234, 5.678]),  # may be both: the separator decides
        (["1,234", "5,678"], ",", ".", [1234, 5678]),
        (["1.234", "5.678"], ";", ".", [1.234, 5.678]),
        (["-1e-3", "+2E5", ".5", "5."], ",", ".", [-1e-3, 2e5, 0.5, 5]),
        (["\u22123,5", "0,0"], "\t", ",", [-3.5, 0]),
        (["12", "7"], ";", ".", [12, 7]),
        (["1.2.3", "1,2,3", "0x10", "1_000", "e5", "12a"], ",", ".", [np.nan] * 6),
        (["9" * 30, "1" + "0" * 200], ",", ".", [1e30, 1e200]),
    ],
)
def test_numbers_are_read_as_people_write_them(cells, separator, decimal, numbers):
    column = pd.Series(cells, dtype=str)
    assert find_decimal([column], separator) == decimal
    np.testing.assert_allclose(to_numbers(column, decimal), numbers)


def test_latin_1_is_read_and_said(tmp_path):
    content = ("stra\xdfe,y\n" + "\n".join(rows(A, Y))).encode("latin-1")
    table = read_table(write(tmp_path, content), "y")
    assert table.x.shape == (24, 1)
    assert any("Windows-1252" in choice for _, choice in table.choices)
    assert any("stra\xdfe" in what for what, _ in table.choices)


def test_separators_inside_quotes_are_text(tmp_path):
    places = ['"Bonn, am Rhein"', '"Trier; Mosel"'] * 12
    table, choices = read(tmp_path, ["place", "a"], places, A)
    assert table.x.shape == (24, 3)
    assert "text, 2 values" in choices["place"]
    np.testing.assert_array_equal(table.x[:, 0] + table.x[:, 1], 1)


@pytest.mark.parametrize(
    ("name", "cells", "said"),
    [
        ("empty", [""] * 24, "no values"),
        ("dashes", ["-", "NA"] * 12, "no values"),
        ("constant", ["5"] * 24, "the same in every row (5)"),
        ("constant", ["5", "5.0"] * 12, "no two different numbers"),
        ("constant", ["x", ""] * 12, "the same in every row (x)"),
        ("id", range(24), "an id"),
        ("customer_id", range(900, 1620, 30), "an id"),
        ("userID", range(24), "an id"),
        ("", range(24), "an id"),  # the index that pandas writes
        ("note", [f"text {i}" for i in range(24)], "24 different texts"),
    ],
)
def test_what_cannot_be_used_is_dropped_aloud(tmp_path, name, cells, said):
    table, choices = read(tmp_path, [name, "a"], cells, A)
    np.testing.assert_array_equal(table.x[:, 0], A)
    assert table.x.shape == (24, 1)
    choice = choices[name or "column 1"]
    assert choice.startswith("dropped: ") and said in choice


@pytest.mark.parametrize("name", ["year", "paid", "COVID", "b"])
def test_whole_numbers_that_are_not_called_an_id_stay(tmp_path, name):
    table, _ = read(tmp_path, [name], range(24))
    np.testing.assert_array_equal(table.x[:, 0], np.arange(24))


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("yes", "no"), ("ja", "nein")])
def test_booleans_become_columns_of_0_and_1(tmp_path, yes, no):
    table, choices = read(tmp_path, ["b"], [yes, no, no] * 8)
    assert sorted(map(tuple, table.x.T)) == [(0, 1, 1) * 8, (1, 0, 0) * 8]
    assert "text, 2 values" in choices["b"]


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M"]
)
def test_dates_become_days(tmp_path, form):
    days = [3 * i for i in range(24)]
    dates = [(pd.Timestamp("2024-02-28") + pd.Timedelta(days=day)).strftime(form) for day in days]
    dates[5] = ""
    table, choices = read(tmp_path, ["when"], dates)
    days[5] = np.nan
    np.testing.assert_array_equal(table.x[:, 0], days)
    assert "days since 2024-02-28" in choices["when"]


def test_infinite_and_huge_numbers_are_missing(tmp_path):
    cells = ["inf", "-Infinity", "1e200", "9" * 40, *A[4:]]
    table, choices = read(tmp_path, ["a"], cells)
    assert np.isnan(table.x[:3, 0]).all() and table.x[3, 0] == 1e40
    assert "missing: 3 cells" in choices["a"]


def test_a_word_among_numbers_is_missing(tmp_path):
    table, choices = read(tmp_path, ["a"], ["broken", *A[1:]])
    assert np.isnan(table.x[0, 0]) and "1 cells, as 'broken'" in choices["a"]
    np.testing.assert_array_equal(table.x[1:, 0], A[1:])


def test_duplicate_names_are_told_apart(tmp_path):
    table, choices = read(tmp_path, ["a", "a"], A, Y)
    np.testing.assert_array_equal(table.x, np.stack([A, Y], 1))
    assert choices["the file"] == "a second column a is called a (2)"


def test_without_a_header_columns_are_called_by_their_number(tmp_path):
    path = write(tmp_path, "\n".join(rows(A, [f"{y + 0.25}" for y in Y])))
    table = read_table(path, "2")
    np.testing.assert_array_equal(table.y, np.add(Y, 0.25))
    assert any("no header line" in choice for _, choice in table.choices)


def test_a_header_of_numbers_is_taken_as_names_aloud(tmp_path):
    table = read_table(write(tmp_path, "2019,2020\n" + "\n".join(rows(A, Y))), "2020")
    np.testing.assert_array_equal(table.y, Y)
    assert any("taken as names" in choice for _, choice in table.choices)


def test_short_lines_have_missing_cells_at_their_end(tmp_path):
    lines = ["y,a", *rows(Y, A)]
    lines[3] = lines[3].partition(",")[0]
    table = read_table(write(tmp_path, "\n".join(lines)), "y")
    assert np.flatnonzero(np.isnan(table.x[:, 0])).tolist() == [2]


def test_rows_without_a_target_are_dropped_with_both_choices(tmp_path):
    content = "a,y\n" + "\n".join(rows(A, ["", "n/a", *Y[2:]]))
    for missing in ("mean", "drop"):
        table = read_table(write(tmp_path, content), "y", missing=missing)
        np.testing.assert_array_equal(table.y, Y[2:])
        assert ("y", "rows without a target, dropped: 2") in table.choices


def test_missing_inputs_are_dropped_or_the_mean_of_the_training_rows(tmp_path):
    content = "a,b,y\n" + "\n".join(rows(["", *A[1:]], A[::-1], Y))
    dropped = read_table(write(tmp_path, content), "y", missing="drop")
    np.testing.assert_array_equal(dropped.y, Y[1:])
    assert np.isfinite(dropped.x).all()
    kept = read_table(write(tmp_path, content), "y", missing="mean")
    assert np.isnan(kept.x[0, 0]) and np.isnan(kept.x).sum() == 1
    for table, missing in ((dropped, "drop"), (kept, "mean")):
        said = dict(table.choices)["missing values"]
        assert said.startswith("rows that have some: 1;") and f"--missing {missing}" in said
    for fold in make_folds(kept, seed=0):  # the mean is 0 after scaling, that of training rows
        x = np.concatenate([fold.split.train[0], fold.split.held_out[0]])
        assert np.isfinite(x).all()
        order = [*np.delete(np.arange(24), fold.held_out), *fold.held_out]
        assert x[order.index(0), 0] == 0
        present = np.array(order)[: -len(fold.held_out)] != 0
        np.testing.assert_allclose(fold.split.train[0][present, 0].mean(), 0, atol=1e-6)


def test_a_column_without_values_in_the_training_rows_is_0(tmp_path):
    content = "a,b,y\n" + "\n".join(rows(["1", "2", *[""] * 22], A, Y))
    for fold in make_folds(read_table(write(tmp_path, content), "y"), seed=0):
        assert np.isfinite(fold.split.train[0]).all() and np.isfinite(fold.split.held_out[0]).all()


def test_max_rows_draws_rows_at_random_by_the_seed(tmp_path):
    content = "a,y\n" + "\n".join(rows(range(500), [i % 9 for i in range(500)]))
    path = write(tmp_path, content)
    one, same, other = [read_table(path, "y", max_rows=50, seed=seed) for seed in (0, 0, 1)]
    assert one.x.shape == (50, 1) and len(np.unique(one.x)) == 50
    np.testing.assert_array_equal(one.x, same.x)
    assert not np.array_equal(one.x, other.x)
    assert one.x.max() > 400  # not the first rows
    assert any("50 of 500 rows" in choice for _, choice in one.choices)


def test_every_column_is_named_in_the_choices(tmp_path):
    header = ["id", "when", "city", "a", "none"]
    dates = [f"2024-01-{i + 1:02d}" for i in range(24)]
    columns = [range(24), dates, ["Bonn", "Ulm", "Jena"] * 8, A, [""] * 24]
    table, choices = read(tmp_path, header, *columns)
    assert set(header) <= set(choices)
    assert table.x.shape == (24, 1 + 3 + 1)
