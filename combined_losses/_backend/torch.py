"""The `Backend` of torch: gradients have to be switched on where Keras has switched them off."""

import contextlib
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import keras
import numpy as np
import torch

from combined_losses._backend import plain, reverse, torch_choices, torch_images, torch_ranks
from combined_losses._backend.arrays import Once, Partial, Rows, Tensor
from combined_losses._backend.capture import Capture, Reader, is_scaled, joined
from combined_losses._backend.factors import Columns, Product
from combined_losses._backend.protocol import GradientsOf, HasTotal

_T = TypeVar("_T")
_Batch = TypeVar("_Batch")
_Evaluation = TypeVar("_Evaluation", bound=HasTotal)

as_written = plain.as_written
forgetting = plain.forgetting
complete_state = plain.complete_state
entries = plain.entries
entropy_of_ids = plain.entropy_of_ids
in_float64 = plain.in_float64
is_compiling = plain.is_compiling
is_eager = plain.is_eager
is_in_scope = plain.is_in_scope
strategy = plain.strategy
is_threaded = plain.is_threaded
is_traced = plain.is_traced
read_variable = plain.read_variable
order_down = plain.order_down
requiring = plain.requiring
restore_state = plain.restore_state
result_in = plain.result_in

greatest_of_three = torch_choices.greatest_of_three
least_of_three = torch_choices.least_of_three
lesser = torch_choices.lesser

around_step = torch_ranks.around_step
as_one_replica = torch_ranks.as_one_replica
begin_together = torch_ranks.begin_together
check_same = torch_ranks.check_same
choose_ranks = torch_ranks.choose_ranks
global_concat = torch_ranks.global_concat
global_max = torch_ranks.global_max
global_offset = torch_ranks.global_offset
global_sum = torch_ranks.global_sum
replica_count = torch_ranks.replica_count
whole = torch_ranks.whole
recorded = torch_ranks.recorded

blurred = torch_images.blurred
halved = torch_images.halved
spectrum = torch_images.spectrum


def jacobian(
    function: Callable[[list[Tensor]], list[Tensor]], points: list[Tensor]
) -> list[list[Tensor]]:
    with torch.enable_grad():
        return reverse.jacobian(function, [_leaf(point) for point in points], _recording)


def partials(
    function: Callable[[list[Tensor]], list[Tensor]],
    points: list[Tensor],
    wanted: Collection[Partial],
) -> dict[Partial, list[Tensor]]:
    with torch.enable_grad():
        points = [_leaf(point) for point in points]
        return reverse.partials(function, points, wanted, _recording)


def _recording(points: list[Tensor]) -> contextlib.AbstractContextManager[reverse.Slopes]:
    return contextlib.nullcontext(_slopes)  # a tensor knows by itself how it was computed


def _slopes(target: Tensor, sources: list[Tensor]) -> list[Tensor]:
    if not target.requires_grad:
        return [torch.zeros_like(source) for source in sources]
    ones = torch.ones_like(target)
    found = torch.autograd.grad(target, sources, ones, create_graph=True, materialize_grads=True)
    return list(found)


class _FiniteGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        is_finite = torch_ranks.is_everywhere(torch.isfinite(upstream).all())
        return torch.where(is_finite, upstream, 0.0)


def finite_gradient(tensor: Tensor) -> Tensor:
    return _FiniteGradient.apply(tensor)


def evaluate_with_rows(
    points: list[Tensor],
    view: Callable[[list[Tensor]], _Batch],
    parts: Sequence[Callable[[_Batch], _Evaluation]],
    variables: Sequence[keras.Variable],
) -> tuple[list[_Evaluation], Rows]:
    points = [_leaf(point) for point in points]
    batch = view(points)
    evaluations = [part(batch) for part in parts]
    return evaluations, [_gradients(each.total, points) for each in evaluations]


def compiled(function: Callable[..., _T], variables: Sequence[keras.Variable]) -> Callable[..., _T]:
    return function  # not compiled, as Keras's steps are not


def rows_of(
    function: Callable[[list[Tensor]], tuple[list[Tensor], _T]], points: list[Tensor]
) -> tuple[list[Tensor], _T, Rows]:
    with torch.enable_grad():
        points = [_leaf(point) for point in points]
        values, more = function(points)
        return values, more, [_gradients(value, points) for value in values]


def _leaf(tensor: Tensor) -> Tensor:
    """A tensor that gradients can be taken at."""
    return tensor if tensor.requires_grad else tensor.detach().requires_grad_()


def _gradients(value: Tensor, points: Sequence[Tensor]) -> list[Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(point) for point in points]
    found = torch.autograd.grad(
        value, points, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return list(found)


# This many numbers of each gradient are multiplied at a time: twice as fast as all at once.
_CHUNK = 2**18


def gramian(rows: Sequence[Tensor], scales: Tensor) -> Tensor:
    matrix: Tensor = rows if torch.is_tensor(rows) else torch.stack(rows)
    total, factors = matrix.new_zeros(len(matrix), len(matrix)), 1 / scales[:, None]
    for part in matrix.split(_CHUNK, dim=1):
        part = part * factors
        total.addmm_(part, part.T)
    return total


def largest(rows: Sequence[Tensor]) -> Tensor:
    if rows[0].numel() == 0:
        return rows[0].new_zeros(len(rows))
    # One by one, which takes a tenth of the time of `linalg.vector_norm` on a CPU.
    ends = [torch.aminmax(row) for row in rows]
    return torch.stack([torch.maximum(high, -low) for low, high in ends])


def products(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.T


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    # The slope of `cdist` at a distance of 0 is 0, and so is that of its square.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()


class _BinaryEntropy(torch.autograd.Function):
    """Torch would keep, and go through, the gradients of each of its terms."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logit: Tensor, minus_label: Tensor) -> Tensor:
        return torch.nn.functional.softplus(logit).addcmul_(minus_label, logit)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor | None]:
        logit, minus_label = ctx.saved_tensors
        of_label = upstream * logit if ctx.needs_input_grad[1] else None
        return upstream * (torch.sigmoid(logit) + minus_label), of_label

    @staticmethod
    def jvp(ctx: Any, of_logit: Tensor | None, of_label: Tensor | None) -> Tensor:
        logit, minus_label = ctx.saved_tensors
        pairs = (of_logit, torch.sigmoid(logit) + minus_label), (of_label, logit)
        return sum(tangent * slope for tangent, slope in pairs if tangent is not None)


def binary_entropy(logit: Tensor, minus_label: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return plain.binary_entropy(logit, minus_label)
    entropy: Tensor = _BinaryEntropy.apply(logit, minus_label)
    return entropy


def mean(x: Tensor, axes: tuple[int, ...] | None) -> Tensor:
    # The slope of a sum is one number, seen at each place; torch writes the slope of a mean there.
    total = x.sum() if axes is None else x.sum(axes)
    return total / (x.numel() // total.numel())


def ordered_as(other: Tensor, x: Tensor, once: Once | None) -> Tensor:
    if other.is_contiguous() or not x.is_contiguous() or torch.compiler.is_compiling():
        return x
    return _with_channels_outside(x) if once is None else once(_with_channels_outside, x)


def _with_channels_outside(x: Tensor) -> Tensor:
    return x.movedim(-1, 1).contiguous().movedim(1, -1)


def spatial_sum(x: Tensor) -> Tensor:
    batch, *_, width, channels = x.shape
    if channels == 1 or x.ndim == 3 or not x.is_contiguous():
        return x.sum(tuple(range(1, x.ndim - 1)))
    # As in `plain`: with a short last axis the sum takes twice as long, its gradient six times.
    # `flatten` and not `reshape`, which cannot find a length for an empty batch.
    wide = x.flatten(1, -3).flatten(2).sum(1)
    return wide.reshape(batch, width, channels).sum(1)


def spatial_product(a: Tensor, b: Tensor) -> Tensor:
    return spatial_sum(a * b)


def places_after(rows: Tensor, values: Tensor) -> Tensor:
    return torch.searchsorted(rows.contiguous(), values.contiguous(), right=True)


def combine(weights: Tensor, rows: Sequence[Tensor]) -> Tensor:
    return weights.detach() @ (rows if torch.is_tensor(rows) else torch.stack(rows))


def on_host(function: Callable[..., Any], arrays: Sequence[Tensor]) -> Tensor | None:
    # An operation of torch takes ten times as long as one of NumPy, where arrays are this small.
    if torch.compiler.is_compiling():
        return None
    try:
        numbers = [array.detach().cpu().double().numpy() for array in arrays]
        with np.errstate(all="ignore"):  # as tensors do
            found = function(*numbers)
    except (ArithmeticError, np.linalg.LinAlgError, RuntimeError):
        return None  # a RuntimeError: inside `torch.func.vmap` no number is known
    return torch.from_numpy(found).to(arrays[0])


def nth_largest(rows: Tensor, most: Any, places: Tensor | None) -> Tensor:
    if rows.device.type != "cpu" or torch.compiler.is_compiling():
        return plain.nth_largest(rows, most, places)
    try:
        numbers = rows.detach().numpy()
        ranks = [most] * len(rows) if places is None else places.ravel().tolist()
    except RuntimeError:  # inside `torch.func.vmap` no number is known
        return plain.nth_largest(rows, most, places)
    # NumPy's partition takes a thirtieth of the time of torch's `topk`, if many are asked for.
    places_up = [len(row) - rank for row, rank in zip(numbers, ranks, strict=True)]
    found = [np.partition(row, up)[up] for row, up in zip(numbers, places_up, strict=True)]
    return torch.tensor(np.array(found, numbers.dtype)[:, None])


def whole_numbers_from_host(
    function: Callable[..., Any], arrays: Sequence[Tensor], shape: tuple[Any, ...]
) -> Tensor:
    return _on_host(function, arrays)


def _called_on_host(function: Callable[..., Any], arrays: Sequence[Tensor]) -> Tensor:
    found = function(*(array.detach().cpu().numpy() for array in arrays))
    return torch.from_numpy(found).to(arrays[0].device)


# The function is no operation of torch: a compiled step stops there.
_on_host = torch.compiler.disable(_called_on_host)


def either(condition: Tensor, yes: Callable[[], _T], no: Callable[[], _T]) -> _T:
    return yes() if bool(condition) else no()


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: GradientsOf, *points: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.gradients(upstream)


def attach(value: Tensor, points: Sequence[keras.Variable], gradients: GradientsOf) -> Tensor:
    return _Attached.apply(value.detach(), gradients, *(point.value for point in points))


def capture(model: keras.Model, arguments: tuple[Any, ...]) -> Capture:
    return _Capture(model)


class _Capture(Capture):
    """Needs to keep nothing for the gradients: the tensors of the step hold its graph."""

    def watch(self, name: str, tensor: Tensor) -> Tensor:
        tensor = _leaf(tensor)
        self._watched.setdefault(name, []).append(tensor)
        return tensor

    def watch_product(self, product: Product) -> Tensor:
        # In a block without gradients the product has none.
        known = torch.is_tensor(product.x) and product.z.requires_grad
        return super().watch_product(product) if known else product.z

    def rows(
        self, rule: Reader, values: list[Tensor], points: Sequence[Any], scale: Tensor
    ) -> Columns:
        factored = self._factored(rule, len(values), points)
        if factored:
            factored = _not_used_elsewhere(factored, points, values)
        products = [product for each in factored.values() for product in each]
        others = [index for index in range(len(points)) if index not in factored]
        at = [getattr(points[index], "value", points[index]) for index in others]
        zs = [product.z for product in products]
        rows = _memory_of(rule, len(values), at)
        # Slopes are small, and may be needed until the next step.
        rows += [torch.empty(len(values), *z.shape, device=z.device) for z in zs]
        for index, value in enumerate(values):
            for row, found in zip(rows, _gradients(value * scale, [*at, *zs]), strict=True):
                row[index] = found.detach()
        if is_scaled(scale):
            rows = [row.div_(scale) for row in rows]
        flat = (row.flatten(1) for row in rows[: len(at)])
        columns: dict[int, Any] = dict(zip(others, flat, strict=True))
        slopes = iter(rows[len(at) :])
        for index, each in factored.items():
            columns[index] = joined(each, [next(slopes) for _ in each])
        return [columns[index] for index in range(len(points))]


def _not_used_elsewhere(
    factored: dict[int, list[Product]], points: Sequence[Any], values: Sequence[Tensor]
) -> dict[int, list[Product]]:
    """Those of the products by whose kernels the values have no gradient but through them.

    We go back through the graph of the values. At each product we go on with its inputs alone: a
    kernel that we meet nevertheless is used for something else.
    """
    products = {p.z.grad_fn: p for each in factored.values() for p in each}
    met: set[Any] = {None}
    ahead = [value.grad_fn for value in values]
    while ahead:
        node = ahead.pop()
        if node in met:
            continue
        met.add(node)
        product = products.get(node)
        if product is None:
            ahead.extend(before for before, _ in node.next_functions)
        else:
            ahead.append(product.x.grad_fn)
    elsewhere = {id(getattr(node, "variable", None)) for node in met}
    elsewhere.update(id(product.x) for product in products.values())  # of another kernel as inputs
    return {
        index: each for index, each in factored.items() if id(points[index].value) not in elsewhere
    }


# The memory for gradients of a rule, kept from step to step, with its shapes and devices: on a CPU
# new memory takes five times as long as filling it.
_Shapes = list[tuple[tuple[int, ...], Any]]
_MEMORY: weakref.WeakKeyDictionary[Reader, tuple[_Shapes, list[Tensor]]] = (
    weakref.WeakKeyDictionary()
)


def _memory_of(rule: Reader, k: int, points: list[Tensor]) -> list[Tensor]:
    """For each point an array `(k, *shape)` to be filled with k gradients."""
    shapes = [((k, *point.shape), point.device) for point in points]
    if rule not in _MEMORY or _MEMORY[rule][0] != shapes:
        _MEMORY[rule] = shapes, [torch.empty(shape, device=device) for shape, device in shapes]
    return list(_MEMORY[rule][1])


def is_hard(labels: Tensor) -> bool:
    tangent = torch.autograd.forward_ad.unpack_dual(labels).tangent  # of a derivative by them
    if labels.requires_grad or tangent is not None or not _is_known(labels):
        return False
    # Where it is 0, faster than by two comparisons.
    return lies_within(torch.addcmul(labels, labels, labels, value=-1), 0, 0)


def lies_within(x: Tensor, low: float, high: float) -> bool:
    if not _is_known(x) or not x.numel():
        return False
    least, greatest = torch.aminmax(x.detach())
    try:
        return bool(least.item() >= low and greatest.item() <= high)
    except RuntimeError:  # inside `torch.func.vmap` no number is known
        return False


def _is_known(x: Tensor) -> bool:
    # Looking at a number on a GPU would wait for the GPU, and one that is compiled is not known.
    return bool(x.device.type == "cpu" and not torch.compiler.is_compiling())
