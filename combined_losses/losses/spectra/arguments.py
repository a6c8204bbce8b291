"""What the losses of spectra are given: resolutions, and the weights of their terms."""

from collections.abc import Iterable, Mapping, Sequence

from combined_losses._core.checks import are_numbers, is_integer
from combined_losses._core.names import quoted

TERMS = ("convergence", "log_magnitude")


def check_resolution(
    owner: str, fft_size: int, hop: int, window: int, names: tuple[str, str, str]
) -> None:
    """Raises if one of the three numbers is outside its range; `names` are their arguments."""
    for name, number, least in zip(names, (fft_size, hop, window), (1, 1, 2), strict=True):
        most = f" to {names[0]}={fft_size!r}" if name == names[2] else ""
        valid = is_integer(number) and number >= least
        if not valid or (most and number > fft_size):
            raise ValueError(
                f"The argument `{name}` of {owner} must be an integer of at least {least}{most}. "
                f"Received: {number!r}"
            )


def resolutions_of(
    fft_sizes: Sequence[int], hops: Sequence[int], windows: Sequence[int]
) -> list[tuple[int, int, int]]:
    """The resolutions, `(fft_size, hop, window)` each; raises if one is invalid."""
    owner, names = "MultiResolutionSTFT", ("fft_sizes", "hops", "windows")
    lists = dict(zip(names, (fft_sizes, hops, windows), strict=True))
    for name, numbers in lists.items():
        sized = isinstance(numbers, (list, tuple))
        if not sized or not numbers or len(numbers) != len(fft_sizes):
            raise ValueError(
                f"The argument `{name}` of {owner} must be a list of one integer for each "
                f"resolution, as many as there are `fft_sizes`. Received: {numbers!r}"
            )
    resolutions = list(zip(fft_sizes, hops, windows, strict=True))
    for fft_size, hop, window in resolutions:
        check_resolution(owner, fft_size, hop, window, names)
    return resolutions


def check_weights(
    owner: str, weights: Mapping[str, float] | None, terms: Sequence[str] = TERMS
) -> None:
    """Raises unless `weights` is None or holds numbers of at least 0 for `terms`."""
    known = isinstance(weights, dict) and set(weights) <= set(terms)
    if weights is None or (known and all(map(_is_weight, weights.values()))):
        return
    raise ValueError(
        f"The argument `weights` of {owner} must be None or a dict from "
        f"{quoted(terms)} to finite numbers of at least 0. Received: {weights!r}"
    )


def weights_of_part(
    weights: Mapping[str, float], part: str, terms: Iterable[str]
) -> dict[str, float] | None:
    """The weights of a part's terms: those that name the part too come first."""
    found = {name: weights[name] for name in terms if name in weights}
    found |= {name: weights[f"{part}/{name}"] for name in terms if f"{part}/{name}" in weights}
    return found or None


def _is_weight(number: float) -> bool:
    return are_numbers([number]) and number >= 0
