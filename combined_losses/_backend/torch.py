"""What only torch has: gradients have to be switched on where Keras has switched them off."""

import weakref
from typing import Any

import torch

from combined_losses._backend.capture import Capture, is_scaled


def gradient(function):
    """The gradient of a function of one tensor to a scalar, itself differentiable."""

    def gradient_at(x):
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            value = function(x)
            if not value.requires_grad:
                return torch.zeros_like(x)
            return torch.autograd.grad(value, x, create_graph=True, materialize_grads=True)[0]

    return gradient_at


class _Sound(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(tensor):
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, upstream):
        sound = torch.isfinite(upstream).all()
        return torch.where(sound, upstream, 0.0)


def sound_gradient(tensor):
    """`tensor`, with a gradient of 0 where any entry of that gradient is not finite."""
    return _Sound.apply(tensor)


def evaluate_with_rows(points, view, parts, variables):
    """What `parts` give of `view(points)`, and the gradient of each one's total at each point."""
    points = [_leaf(point) for point in points]
    batch = view(points)
    found = [part(batch) for part in parts]
    return found, [_gradients(each.total, points) for each in found]


def compiled(function, variables):
    """A function of tensors that reads variables as they are; not compiled, as Keras's steps."""
    return function


def rows_of(function, points):
    """What a function of points gives, and the gradient of each of its values at each point.

    The function gives a list of k scalars and anything besides; the rows are k lists of one
    gradient for each point.
    """
    with torch.enable_grad():
        points = [_leaf(point) for point in points]
        values, more = function(points)
        return values, more, [_gradients(value, points) for value in values]


def _leaf(tensor):
    return tensor if tensor.requires_grad else tensor.detach().requires_grad_()


def _gradients(value, points):
    if not value.requires_grad:
        return [torch.zeros_like(point) for point in points]
    return torch.autograd.grad(
        value, points, retain_graph=True, allow_unused=True, materialize_grads=True
    )


# So many numbers of each gradient are multiplied at a time: twice as fast as all at once.
_CHUNK = 2**18


def gramian(rows, scales):
    """The products of k flat gradients, each divided by its scale, a power of two: `(k, k)`."""
    rows = rows if torch.is_tensor(rows) else torch.stack(rows)
    total, factors = rows.new_zeros(len(rows), len(rows)), 1 / scales[:, None]
    for part in rows.split(_CHUNK, dim=1):
        part = part * factors
        total.addmm_(part, part.T)
    return total


def largest(rows):
    """The largest magnitude in each of k flat gradients, `(k,)`."""
    if rows[0].numel() == 0:
        return rows[0].new_zeros(len(rows))
    # One by one: a tenth of the time of `linalg.vector_norm` on a CPU.
    ends = [torch.aminmax(row) for row in rows]
    return torch.stack([torch.maximum(high, -low) for low, high in ends])


def products(a, b):
    """The products of the rows of `a` with those of `b`, each to all digits of its dtype."""
    return a @ b.T


def squared_distances(a, b):
    """The squared distances of the rows of `a` to those of `b`, from their differences."""
    # The slope of a distance of 0 is 0.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()


def places_after(rows, values):
    """For each of the `values` of a row the place of the first greater one in the sorted row."""
    return torch.searchsorted(rows.contiguous(), values.contiguous(), right=True)


def combine(weights, rows):
    """The sum of k flat gradients with weights `(k,)`."""
    return weights.detach() @ (rows if torch.is_tensor(rows) else torch.stack(rows))


def either(condition, yes, no):
    """What one of two functions gives; only that one is computed."""
    return yes() if bool(condition) else no()


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, gradients, *points):
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx, upstream):
        return None, None, *(upstream * gradient for gradient in ctx.gradients)


def attach(value, points, gradients):
    """`value` with given gradients at variables, in place of its own."""
    return _Attached.apply(value.detach(), gradients, *(point.value for point in points))


def capture(model, arguments):
    """A training step of `model` with the arguments of `train_step`, to be entered."""
    return _Capture(model)


class _Capture(Capture):
    """Needs to keep nothing: the tensors of the step have its graph."""

    def watch(self, name, tensor):
        tensor = _leaf(tensor)
        self._watched.setdefault(name, []).append(tensor)
        return tensor

    def rows(self, rule, values, points, scale):
        points = [getattr(point, "value", point) for point in points]
        rows = _rows_for(rule, len(values), points)
        for index, value in enumerate(values):
            for row, found in zip(rows, _gradients(value * scale, points), strict=True):
                row[index] = found.detach().reshape(-1)
        return [row.div_(scale) for row in rows] if is_scaled(scale) else rows


# Memory for gradients at parameters is kept from step to step: on a CPU to get it anew takes five
# times as long as to fill it.
_KEPT: Any = weakref.WeakKeyDictionary()


def _rows_for(rule, k, points):
    shapes = [(k, point.numel(), point.device) for point in points]
    if rule not in _KEPT or _KEPT[rule][0] != shapes:
        _KEPT[rule] = shapes, [torch.empty(k, n, device=device) for k, n, device in shapes]
    return _KEPT[rule][1]


def lies_within(x, low, high):
    """Whether all numbers lie within bounds, where that is known at once: eagerly, on the CPU."""
    if x.device.type != "cpu" or not x.numel() or torch.compiler.is_compiling():
        return False
    least, largest = torch.aminmax(x.detach())
    try:
        return bool(least >= low) and bool(largest <= high)
    except RuntimeError:  # inside `torch.func.vmap` no number is known
        return False
