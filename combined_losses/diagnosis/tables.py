"""What terminal and page show of a `Diagnosis`: rows of strings, and sentences."""

import math

COLUMNS = (
    "component",
    "value",
    "weight",
    "of loss",
    "gradient",
    "of gradient",
    "min cos",
    "mean cos",
)


def cells(diagnosis):
    """The rows of the table, as strings: one for each of `COLUMNS`, and the flags."""
    for name, found in diagnosis.components.items():
        depth = diagnosis._depths[name]
        yield (
            "  " * depth + name,
            f"{found.value:.4g}",
            number(found.weight),
            percent(found.share),
            number(found.gradient_norm),
            percent(found.gradient_share),
            cosine(found.min_cosine),
            cosine(found.mean_cosine),
            ", ".join(found.flags),
        )


def number(value):
    """Four digits; a dash for what is unknown."""
    return "–" if math.isnan(value) else f"{value:.4g}"


def percent(share):
    """A share as a percentage; what is not quite 0 or 100 does not look so."""
    if math.isnan(share):
        return "–"
    text = f"{100 * share:.1f} %"
    if share > 0 and text == "0.0 %":
        return "<0.1 %"
    return ">99.9 %" if share < 1 and text == "100.0 %" else text


def cosine(value):
    return "–" if math.isnan(value) else f"{value:+.2f}"


def summary_line(diagnosis):
    """What was looked at, in one line."""
    where = "at the output" if diagnosis.at == "output" else "at the parameters"
    batches = "1 batch" if diagnosis.batches == 1 else f"{diagnosis.batches} batches"
    samples = "1 sample" if diagnosis.samples == 1 else f"{diagnosis.samples} samples"
    return f"loss {diagnosis.loss:.4g} on {samples} in {batches}, gradients {where}"


def proposal(diagnosis):
    """The proposed weights as code, or None where nothing would change."""
    weights = diagnosis.proposed_weights
    now = {name: diagnosis[name].weight for name in weights}
    same = all(math.isclose(weights[name], now[name], rel_tol=0.01) for name in weights)
    if same or len(weights) < 2:
        return None
    return "{" + ", ".join(f"{name!r}: {weight:g}" for name, weight in weights.items()) + "}"


def by_flag(diagnosis):
    """The faults, a list for each flag."""
    faults = {}
    for fault in diagnosis.faults:
        faults.setdefault(fault.flag, []).append(fault)
    return faults


def blind_spot_lines(diagnosis):
    """`(names, message)` of what cannot be seen."""
    return [(", ".join(spot.names), spot.message) for spot in diagnosis._blind_spots]


def all_is_well(diagnosis):
    """The sentence that says so; None where it would not be true."""
    if diagnosis.faults:
        return None
    return "No fault is seen." if diagnosis.invisible else "Nothing is wrong."
