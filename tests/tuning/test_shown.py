"""Tables, figures, pages and the commands of searches."""

import numpy as np
import pytest

from combined_losses.__main__ import main
from combined_losses.tuning import Best, Comparison, Difference, Front, Run, SearchResult
from combined_losses.tuning.objectives import as_objectives
from tests.tuning.small import X, Y

NAMES = ("equal weights", "proposed by diagnose", "as compiled")


def runs(count, keys):
    rng = np.random.default_rng(0)
    return [
        Run(
            f"trial {i}",
            {"under": float(rng.uniform(0.1, 1)), "weighting": ["none", "FAMO"][i % 2]},
            {key: list(rng.uniform(1, 2, 3)) for key in keys},
            seconds_per_step=0.1,
        )
        for i in range(count)
    ]


def search_of(keys, trials=6):
    goals = as_objectives([f"{key}:min" for key in keys])
    named = zip(NAMES, runs(3, keys), strict=True)
    references = [Run(name, {"under": 1.0}, run.per_seed) for name, run in named]
    failed = Run("trial 9", {"under": 1.0, "weighting": "none"}, state="failed", note="<broken>")
    return SearchResult(
        objectives=goals,
        references=references,
        trials=[*runs(trials, keys), failed],
        prefer={},
        confirmed=[],
        importances={key: {"under": 0.7, "weighting": 0.3} for key in keys},
        builder=lambda run: None,
    )


def comparison():
    named = [Run(run.name, {}, run.per_seed, seconds_per_step=1) for run in runs(4, ["val_mae"])]
    base = Run("equal weights", {}, named.pop().per_seed, seconds_per_step=2)
    return Comparison(as_objectives("val_mae:min"), [base, *named])


def front():
    keys = ["val_fit_loss", "val_under_loss"]
    return Front(as_objectives(keys), runs(4, keys), np.ones(2), np.full(2, 2.0))


RESULTS = {
    "search": lambda: search_of(["val_mae"]),
    "search, two": lambda: search_of(["val_mae", "val_auc"]),
    "comparison": comparison,
    "front": front,
}


@pytest.mark.backend_free
@pytest.mark.parametrize("make", RESULTS.values(), ids=RESULTS)
def test_every_result_shows_all_runs(make, tmp_path):
    result = make()
    page = result.to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    assert page.startswith("<!DOCTYPE html>") and page.count("<svg") == 1
    assert (
        "http"
        not in page.replace("http://www.w3.org", "").partition("</head>")[2].partition("<svg")[0]
    )
    frame = result.to_frame()
    assert list(frame.index) == [run.name for run in result.runs]
    for run in result.runs:
        assert run.name in str(result) and run.name in result._repr_html_()
        for key, value in run.values.items():
            assert frame.loc[run.name, key] == value
    assert "<broken>" not in page
    assert str(len(result.runs)) in repr(result) or "trials" in repr(result)


@pytest.mark.backend_free
@pytest.mark.parametrize("kind", ["values", "parallel", "importance", "overview"])
def test_the_figures_of_a_search(kind):
    figure = search_of(["val_mae"]).plot(kind)
    assert len([ax for ax in figure.axes if ax.get_label() != "<colorbar>"]) == (
        3 if kind == "overview" else 1
    )


@pytest.mark.backend_free
def test_one_parameter_is_drawn_against_the_objective():
    found = search_of(["val_mae"])
    found.trials = [
        Run(run.name, {"under": run.parameters["under"]}, run.per_seed) for run in found.trials[:-1]
    ]
    _, ax = found.plot().axes
    points = np.transpose(ax.lines[0].get_data(orig=False))
    expected = [[run.parameters["under"], run.values["val_mae"]] for run in found.trials]
    np.testing.assert_allclose(points, expected)
    assert ax.get_xlabel() == "under"


@pytest.mark.backend_free
def test_the_front_of_three_objectives_is_that_of_the_two_that_are_drawn():
    found = search_of(["val_mae", "val_auc", "val_time"])
    (ax,) = found.plot("front").axes
    points = {tuple(run.values[key] for key in ("val_mae", "val_auc")) for run in found.finished}
    best = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    (line,) = [line for line in ax.lines if line.get_drawstyle() == "steps-post"]
    assert set(zip(*line.get_data(orig=True), strict=True)) == best
    assert len(found.pareto) > len(best)


@pytest.mark.backend_free
def test_the_values_are_those_of_the_runs():
    found = search_of(["val_mae"])
    (ax,) = found.plot("values").axes
    points = ax.containers[0].lines[0].get_ydata(orig=False)
    np.testing.assert_allclose(points, [run.values["val_mae"] for run in found.trials[:-1]])
    lines = {
        line.get_label(): line.get_ydata()[0] for line in ax.lines if len(line.get_ydata()) == 2
    }
    for run in found.references:
        assert lines[run.name] == run.values["val_mae"]
    assert [text.get_text() for text in ax.get_legend().get_texts()][:3] == list(NAMES)


@pytest.mark.backend_free
@pytest.mark.parametrize("kind", ["front", "sum"])
def test_a_kind_that_is_not_there(kind):
    with pytest.raises(ValueError, match=rf"`kind` must be.*Received: '{kind}'"):
        search_of(["val_mae"]).plot(kind)


@pytest.mark.backend_free
def test_a_search_without_results_says_so():
    failed = Run("trial 0", {}, state="failed", note="out of memory")
    found = SearchResult(
        objectives=as_objectives("loss"),
        references=[],
        trials=[failed],
        prefer={},
        confirmed=[],
        importances={},
        builder=lambda run: None,
    )
    assert "out of memory" in str(found)
    with pytest.raises(ValueError, match=r"No run of the search has a result.*out of memory"):
        found.best  # noqa: B018
    with pytest.raises(ValueError, match="nothing to draw"):
        found.plot()


# The commands.

SCRIPT = """
import keras, combined_losses as cl
def build():
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    losses = {"fit": "mse", "under": cl.losses.UnderestimationPenalty()}
    model.compile("sgd", loss=cl.CompositeLoss(losses), metrics=["mae"])
    return model
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    return tmp_path


SHORT = ["--objective", "val_mae:min", "--epochs", "1"]


def test_the_search_command_prints_the_table_and_writes_the_page(folder, capsys):
    words = ["search", "train.py:build", "data.npz", "--weights", "under=0.01:10", *SHORT]
    words += ["--trials", "1", "--seeds", "1", "--html", "out.html"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "trial 0" in out and "equal weights" in out and "Written: out.html" in out
    assert "trial 0" in (folder / "out.html").read_text(encoding="utf-8")
    assert (folder / "search.db").is_file()


def test_the_compare_command(folder, capsys):
    words = ["compare", "train.py:build", "data.npz", *SHORT, "--rules", "FAMO", "--seeds", "2"]
    assert main([*words, "--validation", "data.npz"]) == 0
    assert "val_mae: " in capsys.readouterr().out


BAD = {
    "no script": (["nosuch.py:build", "data.npz"], "FILE.py:FUNCTION, received 'nosuch.py:build'"),
    "no function": (["train.py:make", "data.npz"], "has no function 'make'"),
    "no data": (["train.py:build", "nosuch.npz"], "nosuch.npz is not a file"),
    "no range": (["train.py:build", "data.npz", "--weights", "under=1"], "received 'under=1'"),
    "nothing": (["train.py:build", "data.npz", "--weights"], "--weights"),
}


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD)
def test_errors_of_the_command_are_one_line(folder, capsys, words, message):
    given = words if "--weights" in words else [*words, "--weights", "under=0.1:1"]
    try:
        code = main(["search", *given, *SHORT])
    except SystemExit as end:  # argparse's own
        code = end.code
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_fresh_seeds_decide_whether_the_best_is_more_than_noise():
    run = Run("trial 3", {"under": 0.3}, {"val_mae": [1.0, 2.0]})
    by_luck = {"val_mae": Difference(mean=0.4, low=0.1, high=0.7)}
    fresh = {"val_mae": Difference(mean=-0.1, low=-0.3, high=0.1)}
    assert str(Best(run, by_luck, fresh)) == (
        "The best run is trial 3 (under=0.3). With fresh seeds, which did not choose it, it does "
        "not beat equal weights in val_mae: by -0.1 (95 % interval -0.3 to +0.1): not more than "
        "the noise. With the seeds that chose it, the difference is +0.4, 95 % interval +0.1 to "
        "+0.7."
    )
    assert not Best(run, by_luck, fresh).exceeds_noise
    assert Best(run, by_luck, {}).exceeds_noise
