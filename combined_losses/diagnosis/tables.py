"""What terminal and page show of a `Diagnosis`: rows of strings, and sentences."""

import math
from collections.abc import Iterator

from combined_losses._core.names import listed
from combined_losses.diagnosis.faults import Fault
from combined_losses.diagnosis.findings import Findings

_COLUMNS = (
    "component",
    "rows",
    "value",
    "weight",
    "of loss",
    "gradient",
    "of gradient",
    "min cos",
    "mean cos",
)


def columns(diagnosis: Findings) -> list[str]:
    """The heads of the columns, without that of the flags."""
    return [name for name in _COLUMNS if name != "rows" or diagnosis._has_own_rows]


def cells(diagnosis: Findings) -> Iterator[tuple[str, ...]]:
    """The rows of the table: a string for each of the `columns`, and one for the flags."""
    for name, found in diagnosis.components.items():
        depth = diagnosis._depths[name]
        yield (
            "  " * depth + name,
            *([str(found.rows)] if diagnosis._has_own_rows else []),
            f"{found.value:.4g}",
            number(found.weight),
            percent(found.share),
            number(found.gradient_norm),
            percent(found.gradient_share),
            cosine(found.min_cosine),
            cosine(found.mean_cosine),
            ", ".join(found.flags),
        )


def number(value: float) -> str:
    """Four digits; a dash where the number is unknown."""
    return "–" if math.isnan(value) else f"{value:.4g}"


def percent(share: float) -> str:
    """A share as a percentage; only shares of exactly 0 and 1 are shown as 0 % and 100 %."""
    if math.isnan(share):
        return "–"
    text = f"{100 * share:.1f} %"
    if share > 0 and text == "0.0 %":
        return "<0.1 %"
    return ">99.9 %" if share < 1 and text == "100.0 %" else text


def cosine(value: float) -> str:
    """Two digits and the sign; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:+.2f}"


def summary_line(diagnosis: Findings) -> str:
    """What was looked at, in one line."""
    where = "at the output" if diagnosis.at == "output" else "at the parameters"
    batches = "1 batch" if diagnosis.batches == 1 else f"{diagnosis.batches} batches"
    samples = "1 sample" if diagnosis.samples == 1 else f"{diagnosis.samples} samples"
    data = batches if diagnosis._has_own_rows else f"{samples} in {batches}"
    return f"loss {diagnosis.loss:.4g} on {data}, gradients {where}"


def proposal(diagnosis: Findings) -> str | None:
    """The proposed weights as code, or None where nothing would change or lengths say nothing."""
    weights = diagnosis.proposed_weights
    if any(spot.hides_lengths and weights.keys() & spot.names for spot in diagnosis._blind_spots):
        return None
    now = {name: diagnosis[name].weight for name in weights}
    same = all(math.isclose(weights[name], now[name], rel_tol=0.01) for name in weights)
    if same or len(weights) < 2:
        return None
    return "{" + ", ".join(f"{name!r}: {weight:g}" for name, weight in weights.items()) + "}"


def unseen(diagnosis: Findings) -> str:
    """The components whose gradients the proposed weights do not know, in parentheses; or ""."""
    names = [
        name
        for name in diagnosis.invisible
        if name in diagnosis.proposed_weights and math.isnan(diagnosis[name].gradient_norm)
    ]
    return f" (except those of {listed(names)}, not seen here)" if names else ""


def by_flag(diagnosis: Findings) -> dict[str, list[Fault]]:
    """The faults, a list for each flag."""
    faults: dict[str, list[Fault]] = {}
    for fault in diagnosis.faults:
        faults.setdefault(fault.flag, []).append(fault)
    return faults


def blind_spot_lines(diagnosis: Findings) -> list[tuple[str, str]]:
    """For each blind spot the names of its components in one string, and the message."""
    return [(", ".join(spot.names), spot.message) for spot in diagnosis._blind_spots]


def all_is_well(diagnosis: Findings) -> str | None:
    """The sentence that says that all is well; None where it is not."""
    if diagnosis.faults:
        return None
    return "No fault is seen." if diagnosis.invisible else "Nothing is wrong."
