"""Twins of `combined_losses.losses.boundaries` and `combined_losses.losses.contours`."""

import numpy as np
from scipy import ndimage

from tests.oracles.regions import activated


def boundary_disagreement(y_true, y_pred, axes=(1, 2)):
    """Pair by pair of neighbours, in a loop over the elements."""
    y_true, y_pred = np.float64(y_true), np.float64(y_pred)
    values, gradient = np.zeros(len(y_pred)), np.zeros(y_pred.shape)
    for axis in axes:
        pairs = y_pred[0].size // y_pred.shape[axis] * (y_pred.shape[axis] - 1)
        for here in np.ndindex(*y_pred.shape):
            if here[axis] + 1 == y_pred.shape[axis]:
                continue
            ahead = tuple(np.add(here, np.eye(y_pred.ndim, dtype=int)[axis]))
            step = y_pred[ahead] - y_pred[here]
            excess = abs(y_true[ahead] - y_true[here]) - abs(step)
            values[here[0]] += abs(excess) / pairs / len(axes)
            # d |excess| / d step = sign(excess) * d excess / d step = -sign(excess) * sign(step)
            slope = -np.sign(excess) * np.sign(step) / pairs / len(axes)
            gradient[ahead] += slope
            gradient[here] -= slope
    return values, gradient


SOBEL = [[-1 / 8, 0, 1 / 8], [-2 / 8, 0, 2 / 8], [-1 / 8, 0, 1 / 8]]


def sobel_edge(y_true, y_pred, kernel=None):
    """Position by position, for the kernel and its transpose."""
    kernel = np.float64(SOBEL if kernel is None else kernel)
    difference = np.float64(y_pred) - np.float64(y_true)
    values, gradient = np.zeros(len(difference)), np.zeros(difference.shape)
    _, height, width, channels = difference.shape
    for own in (kernel, kernel.T):
        rows, columns = own.shape
        places = (height - rows + 1, width - columns + 1)
        share = 1 / (2 * places[0] * places[1] * channels)
        for n, i, j, c in np.ndindex(len(difference), *places, channels):
            window = n, slice(i, i + rows), slice(j, j + columns), c
            response = np.sum(own * difference[window])
            values[n] += share * abs(response)
            gradient[window] += share * np.sign(response) * own
    return values, gradient


def other_kind(inside, spacing=None):
    """The distance of every pixel of one mask to the nearest of the other kind; 0 without one."""
    if inside.all() or not inside.any():
        return np.zeros(inside.shape)
    to_rest, to_mask = (
        ndimage.distance_transform_edt(mask, sampling=spacing) for mask in (inside, ~inside)
    )
    return np.where(inside, to_rest, to_mask)


def _distances(masks, spacing):
    """`other_kind` of every sample and channel of `(batch, spatial..., channels)`."""
    found = np.zeros(masks.shape)
    for n, c in np.ndindex(len(masks), masks.shape[-1]):
        found[n, ..., c] = other_kind(masks[n, ..., c], spacing)
    return found


def _mean(terms, slope):
    """The mean over the pixels and channels of every sample, and the gradient by its terms."""
    return terms.mean(axis=tuple(range(1, terms.ndim))), slope / terms[0].size


def _diagonal(masks, spacing):
    return np.linalg.norm(np.float64(masks.shape[1:-1]) * (1 if spacing is None else spacing))


def signed_distance_boundary(
    y_true, y_pred, from_logits=False, multilabel=False, spacing=None, precomputed=False
):
    p, back = activated(y_pred, from_logits, multilabel)
    phi = np.float64(y_true)
    if not precomputed:
        inside = phi > 0.5
        distance = _distances(inside, spacing)
        mixed = distance > 0  # a pixel of an empty or full mask has no distance
        least = np.min(1 if spacing is None else spacing)
        phi = np.where(inside, np.where(mixed, least - distance, 0), distance)
        phi = phi / _diagonal(y_pred, spacing)
    values, slope = _mean(p * phi, phi)
    return values, back(slope)


def hausdorff_distance(
    y_true, y_pred, alpha=2.0, from_logits=False, multilabel=False, spacing=None
):
    p, back = activated(y_pred, from_logits, multilabel)
    y, diagonal = np.float64(y_true), _diagonal(y_pred, spacing)
    weight = sum((_distances(mask > 0.5, spacing) / diagonal) ** alpha for mask in (p, y))
    values, slope = _mean((p - y) ** 2 * weight, 2 * (p - y) * weight)
    return values, back(slope)
