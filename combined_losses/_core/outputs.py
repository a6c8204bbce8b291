"""The outputs of a model by name, and what else leaves a step of training."""

import dataclasses
import itertools

import keras

from combined_losses._backend import keras_private
from combined_losses._core.named_arrays import to_named
from combined_losses._core.names import make_unique

BATCH = "combined_losses_batch"  # among the logs of a step, before callbacks see them
NOTHING = object()  # where a structure has no entry for an output


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an output is in the structure that a model returns."""

    path: tuple  # the keys and indices that lead to it
    index: int  # among all outputs, in the order of `keras.tree.flatten`
    base: str  # its name before others that have the same name are told apart
    layer: str | None = None  # the name of its layer, by which an entry of a list may be called


def places_of(structure, layer_names=None):
    """The `Place` of every output by its name; "" names a single one.

    A key of a dict, the name of the layer in a list, Keras's path where they are nested (`h/a`,
    `0/a`, `1/head`). Where two would be equal, the next gets `_2`, or the next number.
    """
    paths = list(_paths(structure))
    if len(paths) == 1:
        return {"": Place(paths[0][0], 0, "")}
    # Keras flattens a dict by its sorted keys, whatever their order is in the dict.
    order = keras.tree.flatten(_numbered(structure, itertools.count()))
    layers = layer_names if len(layer_names or ()) == len(paths) else [None] * len(paths)
    index = {number: index for index, number in enumerate(order)}
    places = [
        _named(path, in_list, index[number], layers[index[number]])
        for number, (path, in_list) in enumerate(paths)
    ]
    given, named = {place.base for place in places}, {}
    for place in places:
        unique = (
            place.base if place.base not in named else make_unique(place.base, given | {*named})
        )
        named[unique] = place
    return named


def _named(path, in_list, index, layer):
    last, layer = path[-1], layer if in_list else None
    if layer is not None:
        last = layer
    elif in_list and len(path) == 1:
        last = f"output_{last + 1}"
    return Place(path, index, "/".join(map(str, (*path[:-1], last))), layer)


def _entries(structure):
    return structure.items() if isinstance(structure, dict) else enumerate(structure)


def _paths(structure, before=(), in_list=False):
    """The path of every leaf, and whether a list holds it, in the order of the dicts."""
    if not keras.tree.is_nested(structure):
        yield before, in_list
        return
    for key, value in _entries(structure):
        yield from _paths(value, (*before, key), not isinstance(structure, dict))


def _numbered(structure, numbers):
    """The same structure with a number in the place of each leaf, counted in the order of dicts."""
    if not keras.tree.is_nested(structure):
        return next(numbers)
    if isinstance(structure, dict):
        return {key: _numbered(value, numbers) for key, value in structure.items()}
    return [_numbered(value, numbers) for value in structure]


def name_outputs(structure, layer_names=None):
    """Outputs by name, each leaf of whatever structure a model returns; see `places_of`."""
    return {n: _follow(structure, p.path) for n, p in places_of(structure, layer_names).items()}


def _follow(structure, path):
    for key in path:
        structure = structure[key]
    return structure


def shared_names(places):
    """The names that several outputs have, with those by which they are told apart."""
    found: dict[str, list[str]] = {}
    for name, place in (places or {}).items():
        found.setdefault(place.base, []).append(name)
    return {base: names for base, names in found.items() if len(names) > 1}


def spread(values, places, below=False, strict=True):
    """The entries of a structure by the names of the outputs, found as Keras finds them.

    By names, by the paths of the outputs, or one after the other in a flat list. With `below` one
    entry may be for all outputs below it. None where the structure is another one; unless `strict`,
    a dict may hold entries for what is no output.
    """
    keys = _by_name(values, places) if isinstance(values, dict) else {}
    named = {name: values[key] for name, key in keys.items()}
    if named and {*keys.values()} == {*values}:
        return named
    found = _by_path(values, [(n, p.path) for n, p in places.items()], 0, below, strict)
    if found is None and isinstance(values, (list, tuple)) and len(values) == len(places):
        return {name: values[place.index] for name, place in places.items()}
    return found if strict else {**(found or {}), **named}


def _by_name(values, places):
    """The keys of a dict by the names of the outputs that they call."""
    found = {}
    for name, place in places.items():
        key = next((k for k in (name, place.base, place.layer) if k in values), None)
        if key is not None:
            found[name] = key
    return found


def _by_path(values, outputs, depth, below, strict):
    """The entries for outputs `(name, path)` that have the first `depth` keys in common."""
    if len(outputs[0][1]) == depth:
        return {outputs[0][0]: values}
    if not keras.tree.is_nested(values):
        return {name: values for name, _ in outputs} if below else None
    groups: dict[str, list] = {}
    for name, path in outputs:
        groups.setdefault(str(path[depth]), []).append((name, path))
    in_list = isinstance(values, (list, tuple))
    held = {str(key): value for key, value in _entries(values)}
    if in_list and (len(held) != len(groups) or not isinstance(outputs[0][1][depth], int)):
        return None
    if strict and not held.keys() <= groups.keys():
        return None
    found = {}
    for key, group in groups.items():
        if key in held:
            entries = _by_path(held[key], group, depth + 1, below, strict)
            if entries is None:
                return None
            found.update(entries)
    return found


def entry_of(values, key, places, below=False):
    """What a structure holds under a key of its own, a path of keys, or the name of an output."""
    if not keras.tree.is_nested(values):
        return NOTHING
    if isinstance(values, dict) and key in values:
        return values[key]
    if isinstance(values, (list, tuple)) and len(values) == len(places) == 1:
        return values[0]
    found = spread(values, places, below, strict=False) or {}
    if key in found:
        return found[key]
    for part in key.split("/"):
        held = dict(_entries(values)) if keras.tree.is_nested(values) else {}
        part = int(part) if isinstance(values, (list, tuple)) and part.isdecimal() else part
        if part not in held:
            return NOTHING
        values = held[part]
    return values


def rename_single(outputs, y_pred, model):
    """Outputs for a loss that chooses one: a single one has its key, or the name of its layer."""
    if "" not in outputs:
        return outputs
    if isinstance(y_pred, dict):
        return {"/".join(map(str, path)): outputs[""] for path, _ in _paths(y_pred)}
    names = single_names(model, y_pred)
    return {names[0] if names else "output": outputs[""]}


def single_names(model, y_pred=None):
    """What the one output of a model may be called; nothing where the model does not tell."""
    if isinstance(model, keras.Sequential):
        return [layer.name for layer in model.layers[-1:]]
    names = keras_private.output_names(model)
    if names is None:
        return list(y_pred) if isinstance(y_pred, dict) else []
    output = model.output if y_pred is None else y_pred
    return [*(output if isinstance(output, dict) else ()), *names]


def penalty_names(model):
    """Names for the losses that layers add, and for those of the model itself, which comes last."""
    names = {}
    for part in (*getattr(model, "layers", ()), model):
        names[make_unique(part.name, names)] = part
    return list(names)


def with_batch(result, data):
    """What a `train_step` returned, with the arrays of its batch among the logs."""
    logs, state = keras_private.split_result(result)
    logs = {**logs, BATCH: to_named(*keras.utils.unpack_x_y_sample_weight(data))}
    return keras_private.join_result(logs, state)
