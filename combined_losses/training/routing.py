"""Which output of a model meets which target, sample weight and loss."""

import operator

import keras

from combined_losses._core import checks
from combined_losses._core.arguments import as_child
from combined_losses._core.compound import as_node
from combined_losses._core.config import deeply
from combined_losses._core.names import log_key, weight_key
from combined_losses._core.node import MadeOfNodes, node_of
from combined_losses._core.outputs import spread
from combined_losses.composite.loss import CompositeLoss

_IS_CHANGED = operator.attrgetter("has_changed_weights")


class Route:
    """One output with its loss.

    Args:
        output: the name of the output; "" where the model has a single one, and None for a loss
            that chooses its outputs itself and sees all of them.
        loss: a `Node`.
        weight: what its total is multiplied by, of `loss_weights`.
    """

    def __init__(self, output, loss, weight):
        self.output = output
        self.loss = loss
        self.weight = weight
        # Whether its total has a log key of its own, that of the output: a composite's total is in
        # `loss`, but a plain loss of one of several outputs has its own key.
        self.reports_total = bool(output) and not loss.has_weights
        compounds = loss.compounds()
        self._is_deep = len(compounds) > 1
        self._composites = [compound for compound in compounds if compound.has_weights]

    @property
    def component_keys(self):
        """The log keys of the components, by their names in the logs, in order."""
        names = [self.output] if self.reports_total else []
        names += map(self.prefixed, self.loss.component_names)
        return {name: log_key(name) for name in names}

    @property
    def keys(self):
        """The log keys of what this route evaluates, in order."""
        return [*self.component_keys.values(), *map(self.prefixed, self.loss.extra_keys)]

    @property
    def skipped_keys(self):
        """For each composite that may skip components the log keys of their shares."""
        return [tuple(map(self.prefixed, keys)) for keys in self.loss.skipped_keys]

    def weights(self, all_of_them=False):
        """The log keys and current values of the weights that have been changed, or of all."""
        if not all_of_them and not any(map(_IS_CHANGED, self._composites)):
            return {}
        weights = self.loss.current_weights(all_of_them)
        return {weight_key(self.prefixed(name)): value for name, value in weights.items()}

    def evaluate(self, batch):
        """What this route adds to the total, and the values behind its keys."""
        if self._is_deep:
            with deeply():
                found = self.loss.evaluate(batch)
        else:
            found = self.loss.evaluate(batch)
        total = found.total if self.weight == 1 else self.weight * found.total
        values = (found.total, *found.values) if self.reports_total else found.values
        return total, (*values, *found.extras)

    def prefixed(self, name):
        """A name inside the loss as it is in the logs."""
        return f"{self.output}_{name}" if self.output else name


def compounds(loss):
    """The losses made of losses in a compiled `loss`, in order, each once."""
    found = {}
    for leaf in keras.tree.flatten(loss):
        node = node_of(leaf)
        if node is not None:
            found[id(node)] = node
    return list(found.values())


def check_compiled(loss, loss_weights):
    """Raises where `compile` is given no loss in a list or dict, a class of ours, or bad numbers.

    Without a composite the numbers are Keras's affair.
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


def make_routes(loss, loss_weights, places):
    """The routes of a compiled `loss` over outputs, see `outputs.places_of`."""
    if (node := node_of(loss)) is not None and node.routes:
        if isinstance(loss_weights, (dict, list, tuple)):
            raise ValueError(
                f"`loss_weights` must be one number for '{loss.name}', which sees all outputs "
                "together; the weights of its components are its own. "
                f"Received: {loss_weights!r}"
            )
        return [Route(None, node, 1.0 if loss_weights is None else float(loss_weights))]
    losses = by_output("loss", loss, places)
    weights = by_output("loss_weights", loss_weights, places)
    routes = []
    for output in places:
        if losses.get(output) is None:
            continue
        child = as_compiled(losses[output], output)
        child = as_node(output or "loss", child)
        if child.routes:
            raise ValueError(
                f"The loss of output '{output}' chooses its outputs itself, so it has to be "
                f"compiled alone, as loss=..., not for one output. Received: {child.name!r}"
            )
        weight = weights.get(output)
        what = f"`loss_weights` of output '{output}'" if output else "`loss_weights`"
        weight = 1.0 if weight is None else checks.as_number(what, weight)
        routes.append(Route(output, child, weight))
    _check_moves(routes)
    _check_keys(routes)
    return routes


def as_compiled(loss, output):
    """The loss of an output as an object; a list is a composite of its losses."""
    return as_child(
        CompositeLoss(list(loss)) if isinstance(loss, (list, tuple)) else loss, "loss", output
    )


def _check_moves(routes):
    """Raises where weights that move would move once for each output."""
    seen = {}
    for route in routes:
        if route.loss.moves:
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
                    f"Received: components {list(route.loss.component_names)}"
                )
            seen[key] = route.output


def by_output(what, values, places):
    """`values`, given as one for all or in a structure, as a dict from output name."""
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


def _of_single(what, values, path):
    """The loss or its weight of the one output of a model, which is at a path, or has a name."""
    given = values
    for _ in path or ("its name",):
        if isinstance(values, dict) and len(values) == 1:
            values = next(iter(values.values()))
    if what != "loss" and isinstance(values, (list, tuple)) and len(values) == 1:
        return values[0]
    several = (dict,) if what == "loss" else (dict, list, tuple)
    if isinstance(values, several) and values is given:
        raise ValueError(
            f"`{what}` must have one entry, for the one output of the model. "
            f"Received: {list(values)}"
        )
    return values


def pick(what, values, routes, places, route):
    """The target or sample weight of a route, from what is given for the outputs."""
    if what == "y" and values is None and route.loss.needs_target:
        raise ValueError("`y` must hold the targets that the loss compares with. Received: y=None")
    if values is None:
        return None
    nested = isinstance(values, (list, tuple, dict))
    if route.output is None:  # chosen by the components; of a single output there is one to choose
        alone = list(places) == [""] and isinstance(values, (list, tuple)) and len(values) == 1
        return values[0] if alone else values
    if route.output == "":
        return _alone(what, values, "the one output") if nested else values
    if not nested and (what == "sample_weight" or len(routes) == 1):
        return values  # as Keras takes it: the only target, or one array of weights for all
    found = spread(values, places, what == "sample_weight", strict=False) if nested else None
    if not found and isinstance(values, (list, tuple)) and len(values) == len(routes):
        # Only of the outputs that have a loss, in Keras's order.
        order = sorted(routes, key=lambda each: places[each.output].index)
        found = {each.output: value for each, value in zip(order, values, strict=True)}
    if found and route.output in found:
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


def _alone(what, values, output):
    """The one entry for an output; raises on several, as Keras does."""
    if not isinstance(values, (list, tuple, dict)):
        return values
    leaves = keras.tree.flatten(values)
    if len(leaves) != 1:
        keys = list(values) if isinstance(values, dict) else f"{len(values)} arrays"
        raise ValueError(
            f"`{what}` and the predictions have different structures: {output} of the model has "
            f"several entries in `{what}`. Give one array; a term of one's own may read more by "
            f"cl.wrappers.OnInputs. Received: {what} with {keys}"
        )
    return leaves[0]
