"""Which outputs, inputs and targets of a model a component reads."""

import functools
import inspect

import keras
from keras import ops

from combined_losses import _backend as backend
from combined_losses._internal.checks import is_float, is_integer
from combined_losses._internal.component import Component
from combined_losses._internal.compound import Compound
from combined_losses._internal.config import (
    check_no_lambda,
    construct,
    serialize_function,
    signature_config,
)
from combined_losses._internal.evaluation import Evaluation
from combined_losses._internal.masks import read_mask
from combined_losses._internal.named_errors import NamedErrors
from combined_losses._internal.names import derive_name
from combined_losses._internal.owned import OwnedModels
from combined_losses._internal.presence import presence
from combined_losses._internal.reduction import PER_COMPONENT
from combined_losses._internal.traits import Traits
from combined_losses.training.outputs import (
    NOTHING,
    entry_of,
    name_outputs,
    places_of,
    rename_single,
    shared_names,
)
from combined_losses.wrappers.base import Wrapper

__all__ = ["OnInputs", "OnOutput", "PredictionOnly"]


@keras.saving.register_keras_serializable("combined_losses")
class OnOutput(Wrapper):
    """A loss on chosen outputs of a model of several.

    A composite with such a component sees all outputs together, where Keras would call it once for
    each; every component of it has to say what it reads. It trains in `cl.Model`, `cl.Sequential`
    and `cl.track`.

    Args:
        loss: as in `cl.wrappers.Wrapper`.
        output: the name of an output (a key of a dict of outputs, or the name of the layer), or a
            tuple of names: the loss is then given a tuple of predictions.
        target: a key of `y`, or a tuple of keys: the loss is then given a tuple of targets. Default
            the same key as the output, or the whole of `y` where it has no such key. Sample weights
            in a dict are chosen likewise; of several outputs or targets, their mean.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    The mask is that of the output; of a tuple, what the masks of all of them let through.

    Raises:
        ValueError: if the model has no such output, `y` no such key, or in a plain `keras.Model`.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(
    ...     {
    ...         "mask": cl.wrappers.OnOutput("binary_crossentropy", "mask"),
    ...         "price": cl.wrappers.OnOutput("mse", "price"),
    ...     }
    ... )
    """

    routes = True

    def __init__(self, loss, output, target=None, **kwargs):
        super().__init__(loss, **kwargs)
        names = output if isinstance(output, (tuple, list)) else [output]
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"The argument `output` of OnOutput ('{self.name}') must be the name of an output, "
                f"or a tuple of names. Received: {output!r}"
            )
        several = list(target) if isinstance(target, (tuple, list)) else [target]
        if target is not None and not (several and all(isinstance(key, str) for key in several)):
            raise ValueError(
                f"The argument `target` of OnOutput ('{self.name}') must be a key of `y`, a tuple "
                f"of keys or None. Received: {target!r}"
            )
        if isinstance(self.loss, Compound) and self.loss.routes:
            raise ValueError(
                f"The loss of OnOutput ('{self.name}') reads outputs by itself; choose one in one "
                f"place. Received: {loss!r}"
            )
        self.output = output
        self.target = target

    def arranged(self, batch):
        return batch

    def see(self, batch, label):
        return batch  # that of the chosen output

    def choose_output(self, batch, label):
        if batch.output_is_chosen:
            return batch
        outputs = batch.y_pred
        if not isinstance(outputs, dict):
            nested = keras.tree.is_nested(outputs)
            received = f"{len(outputs)} arrays" if nested else f"shape {tuple(outputs.shape)}"
            raise ValueError(
                f"Component '{label}' chooses an output of the model, and Keras gives a loss one "
                "output at a time. Compile it in cl.Model, cl.Sequential or cl.track(model), or "
                f"call it with a dict of outputs. Received: y_pred of {received}"
            )
        several = isinstance(self.output, (tuple, list))
        shared = shared_names(batch.places)
        for name in self.output if several else [self.output]:
            if name in shared:
                raise ValueError(
                    f"Component '{label}' reads the output {name!r}, and several have that name: "
                    f"{' and '.join(map(repr, shared[name]))}. Let the model return a "
                    f"dict, so that each has a key of its own. Received: output={name!r}"
                )
        unknown = [n for n in (self.output if several else [self.output]) if n not in outputs]
        if unknown:
            raise ValueError(
                f"Component '{label}' reads an output that the model has not; it has "
                f"{', '.join(map(repr, outputs))}. Received: {unknown[0]!r}"
            )
        y_pred = tuple(outputs[n] for n in self.output) if several else outputs[self.output]
        return batch.replaced(
            y_true=self._target(batch, label),
            y_pred=y_pred,
            sample_weight=self._weight(batch, label),
            mask=read_mask(y_pred),
            output_is_chosen=True,
        )

    @property
    def _key(self):
        """Where its target and sample weights are found; a tuple of outputs has no such key."""
        return self.output if self.target is None else self.target

    def _target(self, batch, label):
        y, key, places = batch.y_true, self._key, places_in(batch)
        if isinstance(key, str) or self.target is not None:
            keys = [key] if isinstance(key, str) else key
            found = [entry_of(y, each, places) for each in keys]
            missing = [each for each, entry in zip(keys, found, strict=True) if entry is NOTHING]
            if not missing:
                return found[0] if isinstance(key, str) else tuple(found)
            if self.target is not None and y is not None and self.needs_target:
                held = y if isinstance(y, dict) else places
                raise ValueError(
                    f"Component '{label}' has the target {missing[0]!r}, and `y` the keys "
                    f"{', '.join(map(repr, held))}. Received: target={self.target!r}"
                )
        # A target of another name, where there is one output and one target.
        only = isinstance(y, dict) and len(y) == len(places) == 1
        return next(iter(y.values())) if only else y

    def _weight(self, batch, label):
        """The sample weights of its target; of several outputs or targets, their mean."""
        weight, places = batch.sample_weight, places_in(batch)
        if not keras.tree.is_nested(weight):
            return weight
        read = self.target or self.output
        read = [read] if isinstance(read, str) else read
        found = [entry_of(weight, key, places, below=True) for key in read]
        found = [entry for entry in found if entry is not NOTHING]
        # Keras gives one array of weights again for each entry of `y`, whatever its keys are.
        named = any(entry_of(batch.y_true, key, places) is not NOTHING for key in read)
        return mean_weight(found if found or named else weight, label)


def places_in(batch):
    """Where the outputs are; a loss that is called by itself is given a dict of them."""
    return places_of(batch.y_pred) if batch.places is None else batch.places


def mean_weight(weights, label):
    """One array of sample weights in place of several, which are equal where one was given."""
    leaves = [leaf for leaf in keras.tree.flatten(weights) if leaf is not None]
    if len({tuple(leaf.shape) for leaf in leaves}) > 1:
        raise ValueError(
            f"Component '{label}' reads several outputs, whose sample weights have no mean: give "
            "them one shape, or choose one by OnOutput(..., target=key). Received: sample weights "
            f"of shapes {', '.join(str(tuple(leaf.shape)) for leaf in leaves)}"
        )
    return sum(leaves[1:], leaves[0]) / len(leaves) if leaves else None


@keras.saving.register_keras_serializable("combined_losses")
class PredictionOnly(Wrapper):
    """A term without a target: a regulariser of the predictions, a divergence, sparsity.

    `fit(x)` needs no `y` where no component needs one.

    Args:
        loss: a loss or a string, which is given zeros as `y_true`; or a function of the predictions
            alone, `f(y_pred)`.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.wrappers.PredictionOnly("mae")
    >>> float(loss(None, np.array([[2.0], [4.0]])))
    3.0
    """

    needs_target = reads_target = False

    def arranged(self, batch):
        return batch

    def see(self, batch, label):
        return batch.replaced(y_true=None).with_target()


_SIGNATURE = "model, x, y, y_pred"


@keras.saving.register_keras_serializable("combined_losses")
class OnInputs(Compound):
    """A term of the model itself, its inputs, targets and outputs: an equation, a symmetry.

    Args:
        function: `f(model, x, y, y_pred)`, which returns values of shape `(batch,)` or
            `(batch, ...)`; or one number where it has nothing to do with the samples, such as the
            mean over points of its own. `y` and `y_pred` are as the model has them. Register the
            function to save the model. With derivatives in it, torch cannot compile the step
            (`jit_compile=True`): it differentiates once only.
        reduction: one of Keras's, default `"sum_over_batch_size"`.
        name: default the name of the function.
        dtype: default `keras.config.floatx()`.
        output: None, or the name of the output whose sample weights it takes where each output has
            its own. By default it takes their mean; where they have several shapes, none, which a
            warning says unless the term is one number.
        models: None, or a list of models that the function is given after the others,
            `f(model, x, y, y_pred, *models)`: a teacher, a critic. They are saved with the model,
            and not trained by it.

    A second network, variable or seed that the function reads by itself, from its closure, its
    globals or what it is bound to, is looked for and threaded through compiled steps too, but saved
    where you save it.

    `cl.input_gradients(model, x)` gives derivatives by the inputs. It trains in `cl.Model`,
    `cl.Sequential` and `cl.track`, and sees all outputs.

    Example:

    >>> import keras
    >>> import combined_losses as cl
    >>> def flat(model, x, y, y_pred):
    ...     return keras.ops.square(cl.input_gradients(model, x))
    >>> loss = cl.CompositeLoss({"flat": cl.wrappers.OnInputs(flat)})
    """

    routes = reads_target = is_beyond_output = True
    needs_target = False

    def __init__(
        self,
        function,
        reduction="sum_over_batch_size",
        name=None,
        dtype=None,
        *,
        output=None,
        models=None,
    ):
        owned = isinstance(models, (list, tuple)) and len(models)
        if models is not None and not (owned and all(isinstance(m, keras.Model) for m in models)):
            raise ValueError(
                "The argument `models` of OnInputs must be a list of keras.Model, or None. "
                f"Received: {models!r}"
            )
        if not _takes(function, 4 + len(models or ())):
            raise ValueError(
                f"OnInputs needs a function f(model, x, y, y_pred{', *models' if models else ''}). "
                f"Received: {function!r} of type {type(function).__name__}"
            )
        super().__init__(name or derive_name(function)[0], reduction, dtype)
        if output is not None and not isinstance(output, str):
            raise ValueError(
                f"The argument `output` of OnInputs ('{self.name}') must be the name of an output, "
                f"or None. Received: {output!r}"
            )
        self.function = function
        self.output = output
        self.models = None if models is None else OwnedModels(models)

    @property
    def _children(self):
        return []

    @property
    def component_names(self):
        return ()

    def check_lambdas(self, label):
        check_no_lambda(self.function, label, _SIGNATURE)

    def find_readers(self):
        return [self.function, *(self.models or ())]

    def evaluate(self, batch, reduction=PER_COMPONENT, label=None):
        if batch.model is None:
            raise ValueError(
                f"Component '{label or self.name}' needs the model and its inputs, which Keras "
                "does not give to a loss. Compile it in cl.Model, cl.Sequential or "
                "cl.track(model). Received: a call without a model"
            )
        label = label or self.name
        with NamedErrors(label):
            given = (batch.model, batch.x, batch.y_true, batch.outputs, *(self.models or ()))
            with batch.noting_reads(label):
                values = self.function(*given)
            if values is None or keras.tree.is_nested(values):
                raise ValueError(
                    f"The function of component '{label}' must return one tensor. "
                    f"Received: {values!r}"
                )
            values = ops.convert_to_tensor(values)
        # Where the batch size is unknown, values of a known number are none of the batch.
        if len(values.shape) and values.shape[0] not in (None, batch.size):
            raise ValueError(
                f"Component '{label}' must return values that begin with the batch axis, of shape "
                f"({batch.size}, ...), or one number: for points of its own the mean over them. "
                f"Received: values of shape {tuple(values.shape)}"
            )
        if keras.tree.is_nested(batch.sample_weight):
            batch = batch.replaced(sample_weight=self._weight(batch, values, label))
        imposed = reduction != PER_COMPONENT
        values, seen = self._component.accounted(values, batch, imposed, label)
        values = ops.cast(values, self._component.dtype)
        total = self._component.reduce(values, seen, reduction, label)
        return Evaluation(total, present=presence(batch, values, seen))

    def _weight(self, batch, values, label):
        """The sample weights of one output, or the mean of those of all; None without a mean."""
        weights = batch.sample_weight
        if self.output is not None:
            return self._stated_weight(batch, label)
        leaves = [leaf for leaf in keras.tree.flatten(weights) if leaf is not None]
        if len({tuple(leaf.shape) for leaf in leaves}) < 2:
            return mean_weight(weights, label)
        if len(values.shape):
            self._component._warn(
                label,
                "several weights",
                f"Component '{label}' counts unweighted: the sample weights of the outputs have "
                f"the shapes {', '.join(str(tuple(leaf.shape)) for leaf in leaves)}, and no mean. "
                "State whose it takes: OnInputs(..., output=name).",
            )
        return None

    def _stated_weight(self, batch, label):
        outputs = list(batch.y_pred)
        if self.output not in outputs:
            raise ValueError(
                f"Component '{label}' takes the sample weights of an output that the model has "
                f"not; it has {', '.join(map(repr, outputs))}. Received: output={self.output!r}"
            )
        found = entry_of(batch.sample_weight, self.output, places_in(batch), below=True)
        return None if found is NOTHING else mean_weight(found, label)

    @functools.cached_property
    def _component(self):
        return Component(self.name, self, Traits(), opaque=False)

    def get_config(self):
        return {
            **signature_config(self, without=["function", "models"]),
            "function": serialize_function(self.function, self.name, _SIGNATURE),
            "models": None if self.models is None else self.models.serialized(),
        }

    # Keras's saver writes a network once, wherever it meets it first: where the trained model has
    # it too, or a layer of it, that place is another one when the file is loaded.

    def save_own_variables(self, store):
        if self.models is not None:
            self.models.save(store)

    def load_own_variables(self, store):
        if self.models is not None:
            self.models.load(store)

    @classmethod
    def from_config(cls, config):
        return construct(cls, config)


def _takes(function, count):
    """Whether `function` is one, no loss, and takes `count` positional arguments."""
    if not callable(function) or isinstance(function, keras.losses.Loss):
        return False
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # some built-in ones have no signature to see
        return True
    return True


def input_gradients(model, x, order=1, output=None):
    """Derivatives of a model's output by its inputs, for equations in a loss.

    Args:
        model: a Keras model, which is called with `training=False`, or a function of `x`.
        x: inputs `(batch, inputs)`, or a dict or list of such for a model of several inputs.
        order: 1 (default) for first derivatives, 2 for second ones by the same input, and so on.
        output: None for a model of one output, else the name of one of them.

    Returns:
        `(batch, inputs)` for an output `(batch,)` or `(batch, 1)`, else `(batch, outputs, inputs)`;
        in the structure of `x`.

    Raises:
        ValueError: if `order` is no integer of at least 1, `x` not of rank 2, there is no such
            output, or it has more than two axes.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> inputs = keras.Input((1,))
    >>> model = keras.Model(inputs, inputs**3)
    >>> x = np.array([[2.0]], "float32")
    >>> keras.ops.convert_to_numpy(cl.input_gradients(model, x))
    array([[12.]], dtype=float32)
    >>> keras.ops.convert_to_numpy(cl.input_gradients(model, x, order=2))
    array([[12.]], dtype=float32)
    """
    if not is_integer(order) or order < 1:
        raise ValueError(
            f"`input_gradients` needs an order of at least 1, an integer. Received: order={order!r}"
        )
    leaves = keras.tree.flatten(x) if _is_structure(x) else [x]
    leaves = [_as_inputs(leaf) for leaf in leaves]

    def of_leaf(place):
        def outputs(leaf):
            inputs = [leaf if i == place else other for i, other in enumerate(leaves)]
            packed = keras.tree.pack_sequence_as(x, inputs) if _is_structure(x) else leaf
            return _one_output(model, packed, output)

        count = outputs(leaves[place]).shape[-1]
        columns = [
            _derivative(lambda leaf, k=k: outputs(leaf)[:, k], leaves[place], order)
            for k in range(count)
        ]
        return columns[0] if count == 1 else ops.stack(columns, axis=1)

    found = [of_leaf(place) for place in range(len(leaves))]
    return keras.tree.pack_sequence_as(x, found) if _is_structure(x) else found[0]


def _is_structure(x):
    """Whether `x` holds several inputs; a list of numbers is one."""
    return keras.tree.is_nested(x) and not all(
        isinstance(leaf, (int, float)) for leaf in keras.tree.flatten(x)
    )


def _as_inputs(x):
    """Floating-point inputs `(batch, inputs)`: whole numbers have no derivative."""
    x = ops.convert_to_tensor(x)
    if len(x.shape) != 2:
        raise ValueError(
            "`input_gradients` needs x of shape (batch, inputs), or a dict or list of such. "
            f"Received: x of shape {tuple(x.shape)}"
        )
    return x if is_float(x) else ops.cast(x, keras.config.floatx())


def _one_output(model, x, output):
    """The output of a model, or of a function, as `(batch, outputs)`."""
    found = model(x, training=False) if isinstance(model, keras.layers.Layer) else model(x)
    named = name_outputs(found, getattr(model, "output_names", None))
    named = rename_single(named, found, model)
    if output is None and len(named) == 1:
        chosen = next(iter(named.values()))
    elif output in named:
        chosen = named[output]
    else:
        raise ValueError(
            "The argument `output` of `input_gradients` must be one of "
            f"{', '.join(map(repr, named))}. Received: {output!r}"
        )
    if len(chosen.shape) not in (1, 2):
        raise ValueError(
            "`input_gradients` needs an output of shape (batch,) or (batch, outputs). "
            f"Received: an output of shape {tuple(chosen.shape)}"
        )
    return chosen if len(chosen.shape) == 2 else ops.expand_dims(chosen, -1)


def _derivative(function, x, order):
    """The derivatives of a function `(batch, inputs) -> (batch,)` by each input, `order` times."""
    gradient = backend.gradient(lambda inputs: ops.sum(function(inputs)))
    if order == 1:
        return gradient(x)
    columns = [
        _derivative(lambda inputs, d=d: gradient(inputs)[:, d], x, order - 1)[:, d]
        for d in range(x.shape[1])
    ]
    return ops.stack(columns, axis=1)
