"""Which output of a model meets which target, sample weight and loss."""

import dataclasses
from typing import Any

import keras

from combined_losses._internal import checks
from combined_losses._internal.arguments import as_child
from combined_losses._internal.compound import Compound, as_node
from combined_losses._internal.names import log_key, weight_key
from combined_losses.composite import CompositeLoss
from combined_losses.training.outputs import NOTHING, entry_of


@dataclasses.dataclass
class Route:
    """One output with its loss.

    `output` is "" where the model has a single one, and None for a loss that chooses its outputs
    itself and sees all of them.
    """

    output: str | None
    loss: Any  # a Compound or a Component
    weight: float

    @property
    def reports_total(self):
        """Whether the total of its loss has a log key of its own, that of the output."""
        # A composite's total is in `loss`; a plain loss of one of several outputs has its own key.
        return bool(self.output) and not isinstance(self.loss, CompositeLoss)

    @property
    def component_keys(self):
        """The log keys of the components, by their names in the logs, in order."""
        names = [self.output] if self.reports_total else []
        if isinstance(self.loss, Compound):
            names.extend(map(self.prefixed, self.loss.component_names))
        return {name: log_key(name) for name in names}

    @property
    def keys(self):
        """The log keys of what this route evaluates, in order."""
        extras = self.loss.extra_keys if isinstance(self.loss, Compound) else ()
        return [*self.component_keys.values(), *map(self.prefixed, extras)]

    def weights(self, all_of_them=False):
        """The log keys and current values of the weights that have been changed, or of all."""
        if not isinstance(self.loss, Compound):
            return {}
        weights = self.loss.current_weights(all_of_them)
        return {weight_key(self.prefixed(name)): value for name, value in weights.items()}

    def evaluate(self, batch):
        """What this route adds to the total, and the values behind its keys."""
        total, values, extras = self.loss.evaluate(batch)
        if self.reports_total:
            values = (total, *values)
        return (total if self.weight == 1 else self.weight * total), (*values, *extras)

    def prefixed(self, name):
        """A name inside the loss as it is in the logs."""
        return f"{self.output}_{name}" if self.output else name


def compounds(loss):
    """The losses made of losses in a compiled `loss`, in order, each once."""
    found = {}
    for leaf in keras.tree.flatten(loss):
        if isinstance(leaf, Compound):
            found[id(leaf)] = leaf
    return list(found.values())


def check_compiled(loss, loss_weights):
    """Raises where `compile` is given no loss in a list or dict, a class of ours, or bad numbers.

    Without a composite the numbers are Keras's affair.
    """
    if isinstance(loss, (dict, list, tuple)) and not loss:
        raise ValueError(f"`loss` must not be empty: give a CompositeLoss. Received: loss={loss!r}")
    for leaf in keras.tree.flatten(loss):
        if isinstance(leaf, type) and issubclass(leaf, Compound):
            raise ValueError(
                f"`loss` must be a loss, not a class; create it first: {leaf.__name__}(...). "
                f"Received: {leaf!r}"
            )
    for weight in keras.tree.flatten(loss_weights) if compounds(loss) else ():
        if weight is not None:
            checks.as_number("A number in `loss_weights`", weight)


def check_single(loss, loss_weights, names):
    """Raises where dicts do not name the only output of a model by one of `names`.

    Empty `names` are those of a model that does not tell them.
    """
    if isinstance(loss, dict) and names and not any(name in loss for name in names):
        raise ValueError(
            f"`loss` must name outputs of the model: {list(names)}. Received: {next(iter(loss))!r}"
        )
    allowed = [*names, *(loss if isinstance(loss, dict) else ())]
    given = loss_weights if isinstance(loss_weights, dict) and allowed else ()
    unknown = [name for name in given if name not in allowed]
    if unknown:
        raise ValueError(
            f"`loss_weights` must name the output of the model, {allowed[0]!r}, or be one number. "
            "The weights of components are those of their CompositeLoss. "
            f"Received: {unknown[0]!r}"
        )


def make_routes(loss, loss_weights, outputs, shared=None):
    """The routes of a compiled `loss` over the output names `outputs`.

    `shared` is what `shared_names` gives: an entry of such a name is one for all that have it.
    """
    if isinstance(loss, Compound) and loss.routes:
        if isinstance(loss_weights, (dict, list, tuple)):
            raise ValueError(
                f"`loss_weights` must be one number for '{loss.name}', which sees all outputs "
                "together; the weights of its components are its own. "
                f"Received: {loss_weights!r}"
            )
        return [Route(None, loss, 1.0 if loss_weights is None else float(loss_weights))]
    losses = _by_output("loss", loss, outputs, shared)
    weights = _by_output("loss_weights", loss_weights, outputs, shared)
    routes = []
    for output in outputs:
        if losses.get(output) is None:
            continue
        child = losses[output]
        if isinstance(child, (list, tuple)):
            child = CompositeLoss(list(child))
        if isinstance(child, Compound) and child.routes:
            raise ValueError(
                f"The loss of output '{output}' chooses its outputs itself, so it has to be "
                f"compiled alone, as loss=..., not for one output. Received: {child.name!r}"
            )
        child = as_node(output or "loss", as_child(child, "loss", output))
        weight = weights.get(output)
        what = f"`loss_weights` of output '{output}'" if output else "`loss_weights`"
        weight = 1.0 if weight is None else checks.as_number(what, weight)
        routes.append(Route(output, child, weight))
    _check_moves(routes)
    _check_keys(routes)
    return routes


def _check_moves(routes):
    """Raises where weights that move would move once for each output."""
    seen = {}
    for route in routes:
        if isinstance(route.loss, Compound) and route.loss.moves:
            if id(route.loss) in seen:
                raise ValueError(
                    f"'{route.loss.name}' has weights that move, and they would move once for "
                    f"each of the outputs '{seen[id(route.loss)]}' and '{route.output}': give each "
                    "a composite of its own, or choose outputs inside one by "
                    "cl.wrappers.OnOutput. Received: one composite for several outputs"
                )
            seen[id(route.loss)] = route.output


def _check_keys(routes):
    seen = {}
    for route in routes:
        for key in route.keys:
            if key in seen:
                raise ValueError(
                    f"Two losses would write to the log key '{key}': those of the outputs "
                    f"'{seen[key]}' and '{route.output}'. Rename a component or an output. "
                    f"Received: components {list(getattr(route.loss, 'component_names', []))}"
                )
            seen[key] = route.output


def _by_output(what, values, outputs, shared=None):
    """`values`, given as one for all or in a structure, as a dict from output name."""
    if outputs == [""]:
        if isinstance(values, dict) and len(values) == 1:
            return {"": next(iter(values.values()))}
        if isinstance(values, (list, tuple)) and what != "loss" and len(values) == 1:
            return {"": values[0]}
        if isinstance(values, dict) or (what != "loss" and isinstance(values, (list, tuple))):
            raise ValueError(
                f"`{what}` must have one entry, for the one output of the model. "
                f"Received: {list(values)}"
            )
        return {"": values}
    if not isinstance(values, (dict, list, tuple)):
        return dict.fromkeys(outputs, values)
    found = {name: entry_of(values, name, outputs) for name in outputs}
    for base, names in (shared or {}).items():
        if isinstance(values, dict) and base in values:
            found.update((name, values[base]) for name in names if found[name] is NOTHING)
    _check_entries(what, values, outputs, found)
    return {name: value for name, value in found.items() if value is not NOTHING}


def _check_entries(what, values, outputs, found):
    """Raises where an entry belongs to no output."""
    if isinstance(values, dict):
        known = {*outputs, *(name.partition("/")[0] for name in outputs)}
        unknown = [key for key in values if str(key) not in known]
        if unknown:
            raise ValueError(
                f"`{what}` must name outputs of the model: {outputs}. Received: {unknown[0]!r}"
            )
    elif all(value is NOTHING for value in found.values()):
        raise ValueError(
            f"`{what}` must have one entry for each of the {len(outputs)} outputs {outputs}. "
            f"Received: {len(values)} entries"
        )


def pick(what, values, routes, outputs, route):
    """The part of `values` (`y` or `sample_weight`) that belongs to `route`."""
    if values is None and what == "y" and getattr(route.loss, "needs_target", True):
        raise ValueError("`y` must hold the targets that the loss compares with. Received: y=None")
    if values is None:
        return None
    nested = isinstance(values, (list, tuple, dict))
    if route.output is None:  # chosen by the components; of a single output there is one to choose
        alone = outputs == [""] and isinstance(values, (list, tuple)) and len(values) == 1
        return values[0] if alone else values
    if route.output == "":
        return _alone(what, values) if nested else values
    if not nested and (what == "sample_weight" or len(routes) == 1):
        return values  # as Keras takes it: the only target, or one array of weights for all
    found = entry_of(values, route.output, outputs)
    if found is NOTHING and isinstance(values, (list, tuple)) and len(values) == len(routes):
        found = values[routes.index(route)]  # only the outputs that have a loss
    if found is not NOTHING:
        return found
    if what == "sample_weight" and isinstance(values, dict):
        return None
    if isinstance(values, dict):
        raise ValueError(
            f"`y` must hold a target for output '{route.output}', which has a loss. "
            f"Received: y with the keys {list(values)}"
        )
    received = len(values) if nested else f"shape {values.shape}"
    raise ValueError(
        f"`{what}` must hold one entry for each of the outputs {outputs}, as a list or a dict. "
        f"Received: {received}"
    )


def _alone(what, values):
    """The one entry for the one output of a model; raises on several, as Keras does."""
    leaves = keras.tree.flatten(values)
    if len(leaves) != 1:
        keys = list(values) if isinstance(values, dict) else f"{len(values)} arrays"
        raise ValueError(
            f"`{what}` and the predictions have different structures: the model has one output, "
            f"and `{what}` several entries. Give one array; a term of one's own may read more by "
            f"cl.wrappers.OnInputs. Received: {what} with {keys}"
        )
    return leaves[0]
