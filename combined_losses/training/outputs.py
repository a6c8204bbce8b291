"""The outputs of a model by name, and what else leaves a step of training."""

import keras

from combined_losses._internal.named_arrays import to_named
from combined_losses._internal.names import make_unique

BATCH = "combined_losses_batch"  # among the logs of a step, before callbacks see them


def name_outputs(structure, layer_names=None):
    """Outputs by name, each leaf of whatever structure a model returns.

    A key of a dict, the name of the layer in a list, Keras's path where they are nested (`h/a`,
    `0/a`); "" for a single one. Where two would be equal, the next gets `_2`, or the next number.
    """
    if not keras.tree.is_nested(structure):
        return {"": structure}
    pairs = list(_paths(structure))
    flat_list = isinstance(structure, (list, tuple)) and len(pairs) == len(structure)
    if flat_list:
        if not layer_names or len(layer_names) != len(pairs):
            layer_names = [f"output_{i + 1}" for i in range(len(pairs))]
        pairs = [(name, leaf) for name, (_, leaf) in zip(layer_names, pairs, strict=True)]
    if len(pairs) == 1:
        return {"": pairs[0][1]}
    given = {name for name, _ in pairs}
    named, taken = {}, set()
    for name, leaf in pairs:
        unique = name if name not in taken else make_unique(name, given | taken)
        taken.add(unique)
        named[unique] = leaf
    return named


def _paths(structure, prefix=""):
    """`(path, leaf)` of every leaf, in order."""
    entries = structure.items() if isinstance(structure, dict) else enumerate(structure)
    for key, value in entries:
        if keras.tree.is_nested(value):
            yield from _paths(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def shared_names(structure, layer_names):
    """The names that several outputs of a list have, with those by which they are told apart."""
    if not isinstance(structure, (list, tuple)) or len(layer_names or ()) != len(structure):
        return {}
    unique = list(name_outputs(structure, layer_names))
    found: dict[str, list[str]] = {}
    if len(unique) == len(layer_names):
        for name, own in zip(layer_names, unique, strict=True):
            found.setdefault(name, []).append(own)
    return {name: own for name, own in found.items() if len(own) > 1}


NOTHING = object()  # what `entry_of` gives where there is no entry


def entry_of(values, name, names):
    """The entry of a structure for one of several outputs: by its name, its path or its place."""
    if isinstance(values, dict) and name in values:
        return values[name]
    nested = any("/" in each for each in names)
    if not nested:
        by_place = isinstance(values, (list, tuple)) and len(values) == len(names)
        return values[names.index(name)] if by_place and name in names else NOTHING
    for key in name.split("/"):
        if isinstance(values, dict) and key in values:
            values = values[key]
        elif isinstance(values, (list, tuple)) and key.isdecimal() and int(key) < len(values):
            values = values[int(key)]
        elif keras.tree.is_nested(values):
            return NOTHING
        # else one entry for all that is below it
    return values


def rename_single(outputs, y_pred, model):
    """Outputs for a loss that chooses one: a single one has its key, or the name of its layer."""
    if "" not in outputs:
        return outputs
    if isinstance(y_pred, dict):
        return {path: outputs[""] for path, _ in _paths(y_pred)}
    names = single_names(model, y_pred)
    return {names[0] if names else "output": outputs[""]}


def single_names(model, y_pred=None):
    """What the one output of a model may be called; nothing where the model does not tell."""
    if isinstance(model, keras.Sequential):
        return [layer.name for layer in model.layers[-1:]]
    names = getattr(model, "output_names", None)
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
    logs, *state = result if isinstance(result, tuple) else (result,)
    logs = {**logs, BATCH: to_named(*keras.utils.unpack_x_y_sample_weight(data))}
    return (logs, *state) if state else logs
