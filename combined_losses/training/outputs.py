"""The outputs of a model by name, and what else leaves a step of training."""

import keras

from combined_losses._internal.named_arrays import to_named
from combined_losses._internal.names import make_unique

BATCH = "combined_losses_batch"  # among the logs of a step, before callbacks see them


def name_outputs(structure, layer_names=None):
    """Outputs by name: a dict from name to leaf, with the one name "" for a single output."""
    if isinstance(structure, dict):
        named = dict(structure)
    elif isinstance(structure, (list, tuple)):
        if not layer_names or len(layer_names) != len(structure):
            layer_names = [f"output_{i + 1}" for i in range(len(structure))]
        named = dict(zip(layer_names, structure, strict=True))
    else:
        return {"": structure}
    return named if len(named) > 1 else {"": next(iter(named.values()))}


def rename_single(outputs, y_pred, model):
    """Outputs for a loss that chooses one: a single one has its key, or the name of its layer."""
    if "" not in outputs:
        return outputs
    if isinstance(y_pred, dict):
        return dict(y_pred)
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
