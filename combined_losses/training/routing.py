"""Which target, sample weight and loss belong to which output of a model."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import keras

from combined_losses._core import checks
from combined_losses._core.arguments import as_child
from combined_losses._core.batch import Batch
from combined_losses._core.compound import Compound, as_node
from combined_losses._core.config import deeply
from combined_losses._core.keras_types import KerasLoss, LossLike
from combined_losses._core.names import log_key, weight_key
from combined_losses._core.node import MadeOfNodes, Node, node_of
from combined_losses._core.outputs import Path, Place, spread
from combined_losses._numerics.arrays import Tensor
from combined_losses.composite.loss import CompositeLoss

CompiledLoss: TypeAlias = LossLike | list[Any] | tuple[Any, ...] | dict[str, Any] | None
"""The `loss` of `compile`: one, or lists and dicts of losses in the structure of the outputs."""

LossWeights: TypeAlias = float | list[Any] | tuple[Any, ...] | dict[str, Any] | None
"""The `loss_weights` of `compile`: one number, or lists and dicts of numbers."""

_IS_CHANGED = operator.attrgetter("has_changed_weights")


class Route:
    """One output with its loss.

    Args:
        output: the name of the output; "" where the model has a single one, and None for a loss
            that chooses its outputs itself and sees all of them.
        loss: a `Node`.
        weight: what its total is multiplied by, from `loss_weights`.
    """

    def __init__(self, output: str | None, loss: Node, weight: float) -> None:
        self.output = output
        self.loss = loss
        self.loss_name: str = loss.name  # read in every step, and a property of a composite
        self.weight = weight
        # The name of its total in the logs, that of the output, for a plain loss of one of several
        # outputs. None for a composite, whose total is in `loss`.
        self.total_name: str | None = None if loss.has_weights else output or None
        compounds = loss.compounds()
        self._is_deep = len(compounds) > 1
        self._composites = [compound for compound in compounds if compound.has_weights]

    @property
    def component_keys(self) -> dict[str, str]:
        """The log keys of the components, by their names in the logs, in order."""
        names = [] if self.total_name is None else [self.total_name]
        names += map(self.prefixed, self.loss.component_names)
        return {name: log_key(name) for name in names}

    @property
    def keys(self) -> list[str]:
        """The log keys of what this route evaluates, in order."""
        return [*self.component_keys.values(), *map(self.prefixed, self.loss.extra_keys)]

    @property
    def skipped_keys(self) -> list[tuple[str, ...]]:
        """For each composite that may skip components the log keys of their skipped shares."""
        return [tuple(map(self.prefixed, keys)) for keys in self.loss.skipped_keys]

    def weights(self, all_of_them: bool = False) -> dict[str, float]:
        """The log keys and current values of the weights that have been changed, or of all."""
        if not all_of_them and not any(map(_IS_CHANGED, self._composites)):
            return {}
        weights = self.loss.current_weights(all_of_them)
        return {weight_key(self.prefixed(name)): value for name, value in weights.items()}

    def evaluate(
        self, batch: Batch, is_alone: bool = True
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor | None, ...]]:
        """What this route adds to the total, the values behind its keys, and the rows of these.

        `is_alone`: there is no other route, whose output may have another number of rows.
        """
        if self._is_deep:
            with deeply():
                found = self.loss.evaluate(batch)
        else:
            found = self.loss.evaluate(batch)
        total = found.total if self.weight == 1 else self.weight * found.total
        values = found.values if self.total_name is None else (found.total, *found.values)
        if not is_alone:
            found = found.over_rows(batch.count)
        rows = found.rows[1:] if self.total_name is None else found.rows
        return total, (*values, *found.extras), (*rows, *[None] * len(found.extras)) if rows else ()

    def prefixed(self, name: str) -> str:
        """A name inside the loss as it is in the logs."""
        return f"{self.output}_{name}" if self.output else name


def compounds(loss: CompiledLoss) -> list[Compound]:
    """The nodes of the losses made of losses in a compiled `loss`, in order, each once."""
    found: dict[int, Compound] = {}
    for leaf in keras.tree.flatten(loss):
        node = node_of(leaf)
        if node is not None:
            found[id(node)] = node
    return list(found.values())


def check_compiled(loss: CompiledLoss, loss_weights: LossWeights) -> None:
    """Raises if `compile` is given an empty list or dict, a class of ours, or bad `loss_weights`.

    Without a composite it is Keras that checks the `loss_weights`.
    """
    if isinstance(loss, (dict, list, tuple)) and not loss:
        raise ValueError(f"`loss` must not be empty: give a CompositeLoss. Received: loss={loss!r}")
    for leaf in keras.tree.flatten(loss):
        if isinstance(leaf, type) and issubclass(leaf, MadeOfNodes):
            raise ValueError(
                f"`loss` must be a loss, not a class; create it first: {leaf.__name__}(...). "
                f"Received: {leaf!r}"
            )
    for weight in keras.tree.flatten(loss_weights) if compounds(loss) else ():
        if weight is not None:
            checks.as_number("A number in `loss_weights`", weight)


def check_single(loss: CompiledLoss, loss_weights: LossWeights, names: Sequence[str]) -> None:
    """Raises if dicts do not name the only output of a model by one of `names`.

    `names` is empty if the model does not tell how its output may be called.
    """
    if isinstance(loss, dict) and names and not any(name in loss for name in names):
        raise ValueError(
            f"`loss` must name outputs of the model: {list(names)}. Received: {next(iter(loss))!r}"
        )
    allowed = [*names, *(loss if isinstance(loss, dict) else ())]
    named = loss_weights if isinstance(loss_weights, dict) and allowed else ()
    unknown = [name for name in named if name not in allowed]
    if unknown:
        raise ValueError(
            f"`loss_weights` must name the output of the model, {allowed[0]!r}, or be one number. "
            "The weights of components are those of their CompositeLoss. "
            f"Received: {unknown[0]!r}"
        )


def make_routes(
    loss: CompiledLoss, loss_weights: LossWeights, places: dict[str, Place]
) -> list[Route]:
    """The routes of a compiled `loss` over outputs, see `outputs.places_of`."""
    node = node_of(loss)
    if node is not None and node.chooses_outputs:
        if isinstance(loss_weights, (dict, list, tuple)):
            raise ValueError(
                f"`loss_weights` must be one number for '{node.name}', which sees all outputs "
                "together; the weights of its components are its own. "
                f"Received: {loss_weights!r}"
            )
        weight = 1.0 if loss_weights is None else float(loss_weights)
        return [Route(None, node, weight)]
    losses = by_output("loss", loss, places)
    weights = by_output("loss_weights", loss_weights, places)
    with_loss = [output for output in places if losses.get(output) is not None]
    routes = [_route_of(output, losses[output], weights.get(output)) for output in with_loss]
    _check_moves(routes)
    _check_keys(routes)
    return routes


def _route_of(output: str, loss: Any, number: float | None) -> Route:
    """The route of one output; `number` is that of `loss_weights`, or None for 1."""
    node = as_node(output or "loss", as_compiled(loss, output))
    if node.chooses_outputs:
        raise ValueError(
            f"The loss of output '{output}' chooses its outputs itself, so it has to be "
            f"compiled alone, as loss=..., not for one output. Received: {node.name!r}"
        )
    what = f"`loss_weights` of output '{output}'" if output else "`loss_weights`"
    return Route(output, node, 1.0 if number is None else checks.as_number(what, number))


def as_compiled(loss: Any, output: str) -> KerasLoss:
    """The loss of an output as an object; a list is a composite of its losses."""
    loss = CompositeLoss(list(loss)) if isinstance(loss, (list, tuple)) else loss
    return as_child(loss, "loss", output)


def _check_moves(routes: Iterable[Route]) -> None:
    """Raises if weights that move would move once for each output, or are learned for several."""
    output_of: dict[int, str | None] = {}
    learned_for: dict[int, str | None] = {}
    for route in routes:
        if route.loss.moves:
            if id(route.loss) in output_of:
                raise ValueError(
                    f"'{route.loss.name}' has weights that move, and they would move once for "
                    f"each of the outputs '{output_of[id(route.loss)]}' and '{route.output}': give "
                    "each a composite of its own, or choose outputs inside one by "
                    "cl.wrappers.OnOutput. Received: one composite for several outputs"
                )
            output_of[id(route.loss)] = route.output
        for variable in route.loss.learned_variables:
            first = learned_for.setdefault(id(variable), route.output)
            if first != route.output:
                raise ValueError(
                    f"'{route.loss.name}' has variables that are trained, and a file would give "
                    f"the outputs '{first}' and '{route.output}' variables of their own: give each "
                    "a loss of its own. Received: one loss for several outputs"
                )


def _check_keys(routes: Iterable[Route]) -> None:
    """Raises if the losses of two outputs would write to one log key."""
    output_of: dict[str, str | None] = {}
    for route in routes:
        for key in route.keys:
            if key in output_of:
                raise ValueError(
                    f"Two losses would write to the log key '{key}': those of the outputs "
                    f"'{output_of[key]}' and '{route.output}'. Rename a component or an output. "
                    f"Received: components {list(route.loss.component_names)}"
                )
            output_of[key] = route.output


def by_output(what: str, values: Any, places: dict[str, Place]) -> dict[str, Any]:
    """A dict from the name of each output to its entry in `values`: one for all, or a structure.

    `what` is the name of the argument: "loss" or "loss_weights".
    """
    if list(places) == [""]:
        return {"": _of_single(what, values, places[""].path)}
    if not isinstance(values, (dict, list, tuple)):
        return dict.fromkeys(places, values)
    found = spread(values, places, below=True)
    if found or not values:
        return found or {}
    if isinstance(values, dict):
        known = {*places, *(str(place.path[0]) for place in places.values())}
        unknown = [key for key in values if str(key) not in known]
        raise ValueError(
            f"`{what}` must name outputs of the model: {list(places)}. "
            f"Received: {(unknown or list(values))[0]!r}"
        )
    raise ValueError(
        f"`{what}` must have one entry for each of the {len(places)} outputs {list(places)}. "
        f"Received: {len(values)} entries"
    )


def _of_single(what: str, values: Any, path: Path) -> Any:
    """The loss, or the weight, of the one output of a model, found by its path or its name."""
    whole = values
    for _ in path or ("its name",):
        if isinstance(values, dict) and len(values) == 1:
            values = next(iter(values.values()))
    if what != "loss" and isinstance(values, (list, tuple)) and len(values) == 1:
        return values[0]
    several = (dict,) if what == "loss" else (dict, list, tuple)
    if isinstance(values, several) and values is whole:
        raise ValueError(
            f"`{what}` must have one entry, for the one output of the model. "
            f"Received: {list(values)}"
        )
    return values


def pick(
    what: str, values: Any, routes: Sequence[Route], places: dict[str, Place], route: Route
) -> Any:
    """The target or the sample weight of a route, out of those of all outputs.

    `what` is the name of the argument: "y" or "sample_weight".
    """
    if what == "y" and values is None and route.loss.needs_target:
        raise ValueError("`y` must hold the targets that the loss compares with. Received: y=None")
    if values is None:
        return None
    nested = isinstance(values, (list, tuple, dict))
    if route.output is None:  # the components choose; of a single output there is one entry
        alone = list(places) == [""] and isinstance(values, (list, tuple)) and len(values) == 1
        return values[0] if alone else values
    if route.output == "":
        return _alone(what, values, "the one output") if nested else values
    if not nested and (what == "sample_weight" or len(routes) == 1):
        return values  # as in Keras: the only target, or one array of weights for all outputs
    found = _entries_of_outputs(what, values, routes, places) if nested else {}
    if route.output in found:
        return _alone(what, found[route.output], f"output '{route.output}'")
    if what == "sample_weight" and isinstance(values, dict):
        return None
    if isinstance(values, dict):
        raise ValueError(
            f"`y` must hold a target for output '{route.output}', which has a loss. "
            f"Received: y with the keys {list(values)}"
        )
    received = len(values) if nested else f"shape {values.shape}"
    raise ValueError(
        f"`{what}` must hold one entry for each of the outputs {list(places)}, as a list or a "
        f"dict. Received: {received}"
    )


def _entries_of_outputs(
    what: str, values: Any, routes: Sequence[Route], places: dict[str, Place]
) -> dict[str, Any]:
    """The entries of a structure of targets or sample weights, by the names of their outputs."""
    found = spread(values, places, what == "sample_weight", strict=False)
    if not found and isinstance(values, (list, tuple)) and len(values) == len(routes):
        # Only of the outputs that have a loss, in Keras's order.
        order = sorted((each.output or "" for each in routes), key=lambda name: places[name].index)
        found = dict(zip(order, values, strict=True))
    return found or {}


def _alone(what: str, values: Any, output: str) -> Any:
    """The one entry for an output; raises if there are several, as Keras does."""
    if not isinstance(values, (list, tuple, dict)):
        return values
    leaves = keras.tree.flatten(values)
    if len(leaves) != 1:
        keys = list(values) if isinstance(values, dict) else f"{len(values)} arrays"
        raise ValueError(
            f"`{what}` and the predictions have different structures: {output} of the model has "
            f"several entries in `{what}`. Give one array, or a composite whose components say "
            "which entry they read: cl.wrappers.OnOutput(loss, output, target=key). "
            f"Received: {what} with {keys}"
        )
    return leaves[0]
