"""The ranks of `torch.distributed` as replicas, which each see a part of the batch.

Each rank computes its contribution to the loss of the whole batch, so that the contributions of all
ranks add up to that loss. Every function here that adds up must be called by all ranks, in the same
order: a call on one rank alone waits until the timeout of the process group.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import torch

from combined_losses._backend.arrays import Tensor

_ranks: Any = torch.distributed
_CHECKED = "_same_on_ranks"


class _Setting:
    """What the user has said of groups, and whether ranks count at this moment."""

    group: Any = None  # None: the default group; False: no ranks
    alone: int = 0  # how many blocks of `as_one_replica` we are in
    counting: int = 0  # in how many steps of validation
    training: int = 0  # in how many steps of `fit`


def choose_ranks(group: Any) -> Any:
    if group is True:
        raise ValueError(
            "`group` must be None (the default process group), a process group, or False. "
            f"Received: {group!r}"
        )
    before, _Setting.group = _Setting.group, group
    return before


def is_distributed() -> bool:
    """Whether there are several ranks, in the group that was chosen."""
    if _Setting.group is False or not _ranks.is_available() or not _ranks.is_initialized():
        return False
    return bool(_ranks.get_world_size(_Setting.group) > 1)


def replica_count() -> int:
    counts = torch.is_grad_enabled() or _Setting.counting
    if not counts or _Setting.alone or not is_distributed():
        return 1
    return int(_ranks.get_world_size(_Setting.group))


@contextlib.contextmanager
def as_one_replica() -> Iterator[None]:
    _Setting.alone += 1
    try:
        yield
    finally:
        _Setting.alone -= 1


class _Sum(torch.autograd.Function):
    """The sum over the ranks; each rank gets the gradient of what all of them do with it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _summed(value)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return _summed(upstream)


def _summed(value: Tensor) -> Tensor:
    total = value.detach().clone().contiguous()
    _ranks.all_reduce(total, group=_Setting.group)
    return total


def global_sum(value: Tensor) -> Tensor:
    if replica_count() == 1:
        return value
    value = torch.as_tensor(value)
    summed: Tensor = _Sum.apply(value) if value.requires_grad else _summed(value)
    return summed


def global_max(value: Tensor) -> Tensor:
    if replica_count() == 1:
        return value
    greatest = value.detach().clone().contiguous()
    _ranks.all_reduce(greatest, op=_ranks.ReduceOp.MAX, group=_Setting.group)
    return greatest


class _Concat(torch.autograd.Function):
    """The rows of all ranks, of which each may have another number."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        sizes = _sizes(len(value))
        ctx.start, ctx.size = _before(sizes), len(value)
        return _gathered(value, sizes)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return _summed(upstream)[ctx.start : ctx.start + ctx.size]


def global_concat(value: Tensor) -> Tensor:
    if replica_count() == 1:
        return value
    if not value.requires_grad:
        return _gathered(value, _sizes(len(value)))
    found: Tensor = _Concat.apply(value)
    return found


def _gathered(value: Tensor, sizes: Sequence[int]) -> Tensor:
    """The rows of all ranks: padded to the largest number, because all must send alike."""
    wire = value.detach().to(torch.uint8) if value.dtype == torch.bool else value.detach()
    padded = wire.new_zeros(max(sizes), *wire.shape[1:])
    padded[: len(wire)] = wire
    parts = [torch.empty_like(padded) for _ in sizes]
    _ranks.all_gather(parts, padded, group=_Setting.group)
    whole = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
    return whole.to(value.dtype)


def _sizes(size: Tensor) -> list[int]:
    """The number of rows of each rank."""
    own = keras.ops.convert_to_tensor([int(size)], "int64")  # a group of NCCL sends from the GPU
    parts = [torch.empty_like(own) for _ in range(_ranks.get_world_size(_Setting.group))]
    _ranks.all_gather(parts, own, group=_Setting.group)
    return [int(part) for part in parts]


def _before(sizes: Sequence[int]) -> int:
    """How many rows the ranks before this one have."""
    return sum(sizes[: _ranks.get_rank(_Setting.group)])


def global_offset(size: Tensor) -> Tensor:
    if replica_count() == 1:
        return 0
    return _before(_sizes(size))


def recorded(record: Tensor, counts: Tensor, all_counts: Tensor) -> tuple[Tensor, Tensor]:
    return global_sum(record), all_counts


def whole(value: Tensor) -> Tensor:
    """The loss of the whole batch, of this rank's contribution to it.

    Its gradient is that of the contribution times the number of ranks: the average over the ranks,
    which `DistributedDataParallel` takes, is then the gradient of the whole batch.
    """
    count = replica_count()
    if count == 1:
        return value
    total, own = _summed(value), value.detach()
    return total + count * (value - own)


# In `fit`, where Keras does not go through the forward pass of `DistributedDataParallel`.


@contextlib.contextmanager
def around_step(model: keras.Model, is_test: bool) -> Iterator[None]:
    """In a step of training gradients are summed before they are applied; in one of validation
    ranks count although no gradient is taken.
    """
    if not is_distributed():
        yield
        return
    if is_test:
        _Setting.counting += 1
        try:
            yield
        finally:
            _Setting.counting -= 1
        return
    optimizer = model.optimizer
    apply = optimizer.apply

    def apply_summed(gradients: Sequence[Tensor | None], variables: Any = None) -> Any:
        return apply(_summed_gradients(gradients, variables), variables)

    vars(optimizer)["apply"] = apply_summed
    _Setting.training += 1
    try:
        yield
    finally:
        _Setting.training -= 1
        del vars(optimizer)["apply"]


def _summed_gradients(
    gradients: Sequence[Tensor | None], variables: Sequence[Any] | None
) -> list[Tensor | None]:
    """The gradients of the whole batch, of this rank's part of them; one message for each dtype.

    A rank whose part of the batch does not reach a variable has no gradient there: zeros.
    """
    found = list(gradients)
    if variables is not None:
        values = [getattr(variable, "value", variable) for variable in variables]
        found = [
            torch.zeros_like(v) if g is None else g for g, v in zip(found, values, strict=True)
        ]
    summed = [*found]
    known = [(i, gradient) for i, gradient in enumerate(found) if gradient is not None]
    for dtype in dict.fromkeys(gradient.dtype for _, gradient in known):
        alike = [(i, gradient) for i, gradient in known if gradient.dtype == dtype]
        flat = torch.cat([gradient.detach().reshape(-1) for _, gradient in alike])
        _ranks.all_reduce(flat, group=_Setting.group)
        parts = flat.split([gradient.numel() for _, gradient in alike])
        for (i, gradient), part in zip(alike, parts, strict=True):
            summed[i] = part.reshape(gradient.shape)
    return summed


def is_everywhere(condition: Tensor) -> Tensor:
    """Whether a condition holds on all ranks; where gradients are taken."""
    if _Setting.alone or not is_distributed():
        return condition
    fails = (~condition).to(torch.float32)
    _ranks.all_reduce(fails, group=_Setting.group)
    return fails == 0


def begin_together(model: keras.Model, describe: Callable[[], str]) -> None:
    if not is_distributed():
        return
    variables = [*model.variables, *model.optimizer.variables]
    shapes = ", ".join(f"{v.path} {tuple(v.shape)}" for v in model.variables)
    _check_same("A model and its loss", f"{describe()} with {shapes}")
    for variable in {id(v): v for v in variables}.values():
        _broadcast(variable.value)


def check_same(loss: Any, learned: Callable[[], Sequence[keras.Variable]]) -> None:
    if _CHECKED in vars(loss):
        return
    vars(loss)[_CHECKED] = True  # past Keras, which tracks what is set
    _check_same(f"The loss '{loss.name}'", repr(loss))
    for variable in learned():
        variable.value.register_hook(_averaged)


def _averaged(gradient: Tensor) -> Tensor:
    """The gradient of what a loss learns, in a loop: `DistributedDataParallel` does not see it."""
    if _Setting.training or _Setting.alone or not is_distributed():
        return gradient
    return _summed(gradient) / _ranks.get_world_size(_Setting.group)


def _check_same(what: str, description: str) -> None:
    found: list[Any] = [None] * _ranks.get_world_size(_Setting.group)
    _ranks.all_gather_object(found, description, group=_Setting.group)
    if len(set(found)) > 1:
        other = next(rank for rank, each in enumerate(found) if each != found[0])
        raise ValueError(
            f"{what} must be the same on all ranks. Received: on rank 0 {found[0]}; on rank "
            f"{other} {found[other]}"
        )


def _broadcast(value: Tensor) -> None:
    """Gives a variable on all ranks the value of the first one."""
    first = 0 if _Setting.group is None else _ranks.get_global_rank(_Setting.group, 0)
    wire = value.detach().to(torch.uint8) if value.dtype == torch.bool else value.detach().clone()
    wire = wire.contiguous()
    _ranks.broadcast(wire, first, group=_Setting.group)
    with torch.no_grad():
        value.copy_(wire)
