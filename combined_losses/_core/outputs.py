"""Finds the outputs of a model by name; adds the batch to the logs of a training step."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import keras

from combined_losses._backend import keras_private
from combined_losses._core.named_arrays import to_named
from combined_losses._core.names import make_unique

BATCH = "combined_losses_batch"  # key in the logs of a step; callbacks never see it
NOTHING = object()  # stands for an entry that a structure does not have


Path: TypeAlias = tuple[Any, ...]  # the keys and indices that lead to an output


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an output is in the structure that a model returns."""

    path: Path
    index: int  # among all outputs, in the order of `keras.tree.flatten`
    base: str  # its name, which other outputs may have too
    layer: str | None = None  # its layer's name, if a list holds it: a key for its target as well


def places_of(structure: Any, layer_names: Sequence[str | None] | None = None) -> dict[str, Place]:
    """The `Place` of every output by its name; a single output has the name "".

    In a dict the name is the key, in a list the name of the layer, and in a nested structure the
    path as Keras writes it (`h/a`, `0/a`, `1/head`). Of two equal names the second one gets `_2`,
    or the next free number.
    """
    paths = list(_paths(structure))
    if len(paths) == 1:
        return {"": Place(paths[0][0], 0, "")}
    # Keras flattens a dict by its sorted keys, whatever their order is in the dict.
    order = keras.tree.flatten(_numbered(structure, itertools.count()))
    layers: Sequence[str | None] = [None] * len(paths)
    if layer_names is not None and len(layer_names) == len(paths):
        layers = layer_names
    index = {number: index for index, number in enumerate(order)}
    places = [
        _named(path, in_list, index[number], layers[index[number]])
        for number, (path, in_list) in enumerate(paths)
    ]
    given = {place.base for place in places}
    named: dict[str, Place] = {}
    for place in places:
        unique = (
            place.base if place.base not in named else make_unique(place.base, given | {*named})
        )
        named[unique] = place
    return named


def _named(path: Path, in_list: bool, index: int, layer: str | None) -> Place:
    last, layer = path[-1], layer if in_list else None
    if layer is not None:
        last = layer
    elif in_list and len(path) == 1:
        last = f"output_{last + 1}"
    return Place(path, index, "/".join(map(str, (*path[:-1], last))), layer)


def _entries(structure: Any) -> Iterable[tuple[Any, Any]]:
    return structure.items() if isinstance(structure, dict) else enumerate(structure)


def _paths(structure: Any, before: Path = (), in_list: bool = False) -> Iterator[tuple[Path, bool]]:
    """The path of every leaf and whether a list holds it; dicts in their own order."""
    if not keras.tree.is_nested(structure):
        yield before, in_list
        return
    for key, value in _entries(structure):
        yield from _paths(value, (*before, key), not isinstance(structure, dict))


def _numbered(structure: Any, numbers: Iterator[int]) -> Any:
    """The structure with a number in place of each leaf, counted with dicts in their own order."""
    if not keras.tree.is_nested(structure):
        return next(numbers)
    if isinstance(structure, dict):
        return {key: _numbered(value, numbers) for key, value in structure.items()}
    return [_numbered(value, numbers) for value in structure]


def name_outputs(structure: Any, layer_names: Sequence[str | None] | None = None) -> dict[str, Any]:
    """Each leaf of the structure that a model returns, by its name; see `places_of`."""
    return {n: _follow(structure, p.path) for n, p in places_of(structure, layer_names).items()}


def _follow(structure: Any, path: Path) -> Any:
    for key in path:
        structure = structure[key]
    return structure


def shared_names(places: dict[str, Place] | None) -> dict[str, list[str]]:
    """Each name that several outputs share, with the names that tell these outputs apart."""
    found: dict[str, list[str]] = {}
    for name, place in (places or {}).items():
        found.setdefault(place.base, []).append(name)
    return {base: names for base, names in found.items() if len(names) > 1}


def spread(
    values: Any, places: dict[str, Place], below: bool = False, strict: bool = True
) -> dict[str, Any] | None:
    """The entries of a structure by the names of the outputs, matched as Keras matches them.

    An entry belongs to an output by the name or the path of the output, or by its position in a
    flat list. With `below`, one entry may stand for a whole structure of outputs. The result is
    None if the structure does not match the outputs. If not `strict`, a dict may hold other entries
    too.
    """
    keys = _by_name(values, places) if isinstance(values, dict) else {}
    named = {name: values[key] for name, key in keys.items()}
    if named and {*keys.values()} == {*values}:
        return named
    found = _by_path(values, [(n, p.path) for n, p in places.items()], 0, below, strict)
    if found is None and isinstance(values, (list, tuple)) and len(values) == len(places):
        return {name: values[place.index] for name, place in places.items()}
    return found if strict else {**(found or {}), **named}


def _by_name(values: dict[str, Any], places: dict[str, Place]) -> dict[str, str]:
    """By the name of each output the key of its entry in the dict, if there is one."""
    found = {}
    for name, place in places.items():
        key = next((k for k in (name, place.base, place.layer) if k in values), None)
        if key is not None:
            found[name] = key
    return found


def _by_path(
    values: Any, outputs: list[tuple[str, Path]], depth: int, below: bool, strict: bool
) -> dict[str, Any] | None:
    """The entries for outputs `(name, path)`, whose paths have the first `depth` keys in common."""
    if len(outputs[0][1]) == depth:
        return {outputs[0][0]: values}
    if not keras.tree.is_nested(values):
        return {name: values for name, _ in outputs} if below else None
    groups: dict[str, list[tuple[str, Path]]] = {}
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


def entry_of(values: Any, key: str, places: dict[str, Place], below: bool = False) -> Any:
    """The entry of a structure under its own key, a path of keys, or the name of an output."""
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
        in_list = isinstance(values, (list, tuple)) and part.isdecimal()
        entry = held.get(int(part) if in_list else part, NOTHING)
        if entry is NOTHING:
            return NOTHING
        values = entry
    return values


def rename_single(outputs: dict[str, Any], y_pred: Any, model: Any) -> dict[str, Any]:
    """The outputs by the names that users choose them by: a single one gets its key or layer."""
    if "" not in outputs:
        return outputs
    if isinstance(y_pred, dict):
        return {"/".join(map(str, path)): outputs[""] for path, _ in _paths(y_pred)}
    names = single_names(model, y_pred)
    return {names[0] if names else "output": outputs[""]}


def single_names(model: Any, y_pred: Any = None) -> list[str]:
    """The names that the single output of a model may be called by; empty if it has no name."""
    if isinstance(model, keras.Sequential):
        return [layer.name for layer in model.layers[-1:]]
    names = keras_private.output_names(model)
    if names is None:
        return list(y_pred) if isinstance(y_pred, dict) else []
    output = model.output if y_pred is None else y_pred
    return [*(output if isinstance(output, dict) else ()), *names]


def penalty_names(model: Any) -> list[str]:
    """A name for each layer, and last one for the model: logs show the losses that they add."""
    names: dict[str, Any] = {}
    for part in (*getattr(model, "layers", ()), model):
        names[make_unique(part.name, names)] = part
    return list(names)


def with_batch(result: Any, data: Any) -> Any:
    """The result of a `train_step`, with the arrays of its batch added to its logs."""
    logs, state = keras_private.split_result(result)
    logs = {**logs, BATCH: to_named(*keras.utils.unpack_x_y_sample_weight(data))}
    return keras_private.join_result(logs, state)
