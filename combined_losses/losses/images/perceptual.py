"""Images by what a trained network sees in them."""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any

import keras
from keras import ops

from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_equal_shapes, check_flag
from combined_losses._core.config import check_no_lambda, serialize_function, signature_config
from combined_losses._core.keras_types import Reduction
from combined_losses._core.loss import Loss
from combined_losses._core.names import quoted
from combined_losses._core.owned import OwnedModels, variables_of
from combined_losses._numerics.arrays import Dtype, Tensor
from combined_losses._numerics.floats import accumulating
from combined_losses.losses.parts import OfParts
from combined_losses.wrappers.base import Wrapper

__all__ = ["Perceptual"]


@keras.saving.register_keras_serializable("combined_losses")
class Perceptual(OfParts):
    """How far a frozen network sees two images apart: the squared error of its features.

    With `f_l` the output of layer l: `sum_l w_l mean (f_l(p) - f_l(y))^2`. With `style=True` it
    compares which features occur together, wherever they are: `sum_l w_l sum (G_l(p) - G_l(y))^2`,
    `G = F^T F / (h w c)`, F the features of a sample as a matrix of h w places and c channels. Use
    it, beside a small pixel loss, where images that are right on average look blurred: early layers
    see edges and texture, late ones what is shown.

    Each layer is a part: in a composite as `{"seen": Perceptual(vgg, ["block2_conv2"])}` the logs
    hold `seen_loss` and `seen/block2_conv2_loss`, and `set_weight("seen/block2_conv2", 0.5)`
    changes its weight.

    Args:
        model: a network with inputs and outputs that Keras knows (functional or sequential, built),
            such as one of `keras.applications`, or one of your own. It is used as in inference,
            gets no gradient and is not trained by the model whose loss this is; it is saved with
            that model. It is not copied: who trains it elsewhere changes the loss.
        layers: the names of the layers whose outputs are compared, a list.
        weights: None (default): 1 for each layer; or a list of one number for each, or a dict by
            the names of layers, in which a layer that is left out has 1.
        style: whether to compare Gram matrices. Default False: the features themselves.
        preprocessing: what the network's inputs need, applied to the truth and to the prediction:
            the name of a module of `keras.applications` whose `preprocess_input` it is, such as
            `"vgg16"` (for images from 0 to 255), a function of images, or a Keras layer, which is
            built if it has variables. None (default): nothing. A function of your own must be
            registered to save the model.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, height, width, channels)`, or what else the network takes
    after the preprocessing, equal; values `(batch,)`, of at least 0. Weights of single pixels are
    an error, because features see neighbours.

    Raises:
        ValueError: if the network is not built or has no such layer, if an argument is outside its
            range, or, when called, if the shapes differ.

    Example: a network that sees the means of 2 x 2 pixels alone.

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> pool = keras.layers.AveragePooling2D(2, name="mean")
    >>> eye = keras.Sequential([keras.Input((4, 4, 1)), pool])
    >>> loss = cl.losses.Perceptual(eye, ["mean"])
    >>> y_true, chessboard = np.full((1, 4, 4, 1), 0.5), np.indices((4, 4)).sum(axis=0) % 2
    >>> float(loss(y_true, chessboard[None, ..., None].astype("float32")))
    0.0
    >>> float(loss(y_true, np.ones((1, 4, 4, 1))))
    0.25

    Equal images: 0, with gradient 0; where a relu is dead in all layers the gradient is 0 too. The
    scale of the style is Johnson's: a sum over c times c numbers. Gatys et al. 2015, arXiv
    1508.06576; Johnson et al. 2016, arXiv 1603.08155.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Sequence[str],
        *,
        weights: Sequence[float] | Mapping[str, float] | None = None,
        style: bool = False,
        preprocessing: str | Callable[[Tensor], Tensor] | None = None,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = None,
        dtype: Dtype = None,
    ) -> None:
        check_flag("Perceptual", "style", style)
        prepare = (
            _of_applications(preprocessing) if isinstance(preprocessing, str) else preprocessing
        )
        if prepare is not None and not callable(prepare):
            raise ValueError(
                "The argument `preprocessing` of Perceptual must be the name of a module of "
                "keras.applications, such as 'vgg16', a function of images, a Keras layer or None. "
                f"Received: {preprocessing!r}"
            )
        eye = _Eye(_extractor(model, layers), prepare)
        if not (weights is None or isinstance(weights, dict) or _has_length(weights, len(layers))):
            raise ValueError(
                "The argument `weights` of Perceptual must be None, a dict by the names of layers, "
                f"or a list of one number for each of the {len(layers)} layers. "
                f"Received: {weights!r}"
            )
        judge = (_Style if style else _Features)()
        parts = {layer: _OfLayer(judge, eye, index) for index, layer in enumerate(layers)}
        super().__init__(parts, weights, reduction, name, dtype)
        self.model = OwnedModels([model], "Perceptual")
        self.layers = layers
        self.weights = weights
        self.style = style
        self.preprocessing = preprocessing
        self._prepare = prepare

    def find_readers(self) -> list[Any]:
        # A layer that is not built is one without variables, such as `Rescaling`.
        own = [self._prepare] if getattr(self._prepare, "built", True) else []
        return [*super().find_readers(), *self.model, *own]

    def check_lambdas(self, label: str) -> None:
        check_no_lambda(self.preprocessing, label, "images")

    def see(self, batch: Batch, label: str) -> Batch:
        batch = self.one_array(batch, label)
        check_equal_shapes(label, batch.y_true, batch.y_pred)
        dtype = accumulating(self.dtype)
        # A network would spread what is in images of weight 0, such as NaN, over their gradients.
        true, pred = (
            batch.neutralised(ops.cast(a, dtype), 0.0) for a in (batch.y_true, batch.y_pred)
        )
        return batch.replaced(y_true=ops.stop_gradient(true), y_pred=pred)

    def get_config(self) -> dict[str, Any]:
        config = signature_config(self, without=["model", "preprocessing"])
        (model,) = self.model.serialized()
        return {
            **config,
            "model": model,
            "weights": self.weights_now(config["weights"]),
            "preprocessing": self._serialized_preprocessing(),
        }

    def _serialized_preprocessing(self) -> Any:
        given = self.preprocessing
        if given is None or isinstance(given, (str, keras.layers.Layer)):
            return keras.saving.serialize_keras_object(given)
        # Keras stores such a function by its name, which all networks have in common.
        known = [name for name in dir(keras.applications) if _of_applications(name) is given]
        return known[0] if known else serialize_function(given, self.name, "images")

    # The network is saved here, not by Keras's saver: see `OnInputs`.

    def save_own_variables(self, store: Any) -> None:
        self.model.save(store)

    def load_own_variables(self, store: Any) -> None:
        self.model.load(store)


class _Eye:
    """A network that returns features, and what its inputs need before.

    It is no tuple: Keras's saver would go into that, and save the network once more.
    """

    def __init__(
        self, network: keras.Model, preprocessing: Callable[[Tensor], Tensor] | None
    ) -> None:
        self.network = network
        self.preprocessing = preprocessing

    def features(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """Those of targets and predictions, in the order of the layers."""
        # No gradient into the network: it sees its variables as constants. (torch would compute it
        # for nothing, and keep it.)
        fixed = [(v, ops.stop_gradient(v.value)) for v in variables_of([self.network])]
        # Some layers raise without samples, which a replica may have; TensorFlow tells none of it.
        size = batch.y_pred.shape[0]
        may_be_empty = size == 0 or (size is None and batch.replicas > 1)
        see = self._seen_with_one_more if may_be_empty else self._seen
        with keras.StatelessScope(state_mapping=fixed):
            return see(batch.y_true), see(batch.y_pred)

    def _seen(self, images: Tensor) -> list[Tensor]:
        if self.preprocessing is not None:
            images = self.preprocessing(images)
        found: list[Tensor] = keras.tree.flatten(self.network(images, training=False))
        return found

    def _seen_with_one_more(self, images: Tensor) -> list[Tensor]:
        sizes = ops.shape(images)
        more = ops.concatenate([images, ops.zeros((1, *sizes[1:]), images.dtype)])
        return [found[: sizes[0]] for found in self._seen(more)]


class _OfLayer(Wrapper):
    """The loss of the features of one layer."""

    def __init__(self, loss: Loss, eye: _Eye, index: int) -> None:
        super().__init__(loss)
        self._eye = eye
        self._index = index

    def see(self, batch: Batch, label: str) -> Batch:
        true, pred = batch.once(("features", id(self._eye)), lambda: self._eye.features(batch))
        return batch.replaced(y_true=ops.stop_gradient(true[self._index]), y_pred=pred[self._index])


class _Features(Loss):
    """The mean squared error of the features of a sample."""

    neutral_target = 1.0

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return ops.mean(ops.square(y_pred - y_true), axis=tuple(range(1, len(y_pred.shape))))


class _Style(Loss):
    """The sum of the squared errors of the Gram matrices of a sample."""

    neutral_target = 1.0

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return ops.sum(ops.square(_gram(y_pred) - _gram(y_true)), axis=(1, 2))


def _has_length(values: object, length: int) -> bool:
    return isinstance(values, Sized) and len(values) == length


def _of_applications(name: str) -> Any:
    """What prepares images for a network of `keras.applications`; the name where that has none."""
    return getattr(getattr(keras.applications, name, None), "preprocess_input", name)


def _gram(features: Tensor) -> Tensor:
    """`F^T F / (h w c)` of each sample, `(batch, c, c)`."""
    if len(features.shape) > 3 and keras.config.image_data_format() == "channels_first":
        features = ops.moveaxis(features, 1, -1)
    batch, *places, channels = ops.shape(features)
    number = functools.reduce(operator.mul, places, 1)  # not -1, which an empty batch leaves open
    flat = ops.reshape(features, (batch, number, channels))
    count = ops.cast(number * channels, flat.dtype)
    return ops.matmul(ops.swapaxes(flat, 1, 2), flat) / count


def _extractor(model: keras.Model, layers: Sequence[str]) -> keras.Model:
    """The network that returns the outputs of some layers; raises if it cannot be made."""
    known = isinstance(model, keras.Model) and model.built and getattr(model, "inputs", None)
    if not known:
        raise ValueError(
            "The argument `model` of Perceptual must be a functional or sequential network that is "
            f"built, with a keras.Input. Received: {model!r}"
        )
    names = [layer.name for layer in model.layers]
    given = isinstance(layers, (list, tuple)) and len(layers)
    if not given or len(set(layers)) != len(layers) or not set(layers) <= set(names):
        raise ValueError(
            "The argument `layers` of Perceptual must be a list of different names of layers of "
            f"'{model.name}', which has {quoted(names)}. Received: {layers!r}"
        )
    outputs = [model.get_layer(name).output for name in layers]
    return keras.Model(model.inputs, outputs, name=f"{model.name}_features")
