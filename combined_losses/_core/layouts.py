"""How predictions belong to targets, where a loss has several predictions for each target."""

from keras import ops

from combined_losses._core.alignment import of_rank


def beside(y_true, y_pred, layout, label):
    """Targets as a loss of this layout is given them, of the rank of the predictions.

    `(..., D)` beside blocks `(..., k * D)`, and `(..., 1)` beside columns `(..., k)`.
    """
    if len(y_true.shape) == len(y_pred.shape) - 1:
        y_true = ops.expand_dims(y_true, -1)
    _check(label, tuple(y_true.shape), tuple(y_pred.shape), layout)
    return y_true


def tells_apart(batch, y_true, y_pred, layout):
    """Whether weights or mask are of single targets that one row of blocks holds several of.

    The values of any other layout have the shape of the targets already.
    """
    if layout != "blocks" or y_true is None or len(y_true.shape) != len(y_pred.shape):
        return False
    rank = len(y_true.shape)
    weights = [of_rank(weight, y_true) for _, weight in batch.weights()]
    finer = [w for w in weights if len(w.shape) == rank and w.shape[-1] != 1]
    return y_true.shape[-1] != 1 and bool(finer)


class View:
    """The predictions of each target on a last axis of their own, and the way back.

    Args:
        batch: a `Batch` of one target and one array of predictions, of the ranks that a loss of
            this layout takes.
        layout: "blocks" or "columns".
        label: the name of the component, for messages.

    Attributes:
        batch: the same batch, with targets as they are, `(...)`, and predictions `(..., k)`.
    """

    def __init__(self, batch, layout, label):
        y_true, y_pred = batch.y_true, batch.y_pred
        given = len(y_true.shape) == len(y_pred.shape) - 1
        self.form = "given" if given else layout
        if not given:
            _check(label, tuple(y_true.shape), tuple(y_pred.shape), layout)
        if self.form == "blocks":
            _check_known(label, tuple(y_true.shape), tuple(y_pred.shape))
            y_pred = _apart(y_pred, y_true.shape[-1])
        elif self.form == "columns":
            y_pred = ops.expand_dims(y_pred, -2)
        self.batch = batch.replaced(y_pred=y_pred, own_axes=1)

    def together(self, batch):
        """A batch that began as `self.batch`, with the predictions as they were given."""
        y_true, y_pred = batch.y_true, batch.y_pred
        if self.form == "columns":
            y_pred = ops.squeeze(y_pred, -2)
        elif self.form == "blocks":
            y_pred = ops.swapaxes(y_pred, -1, -2)
            size = y_pred.shape[-1] * y_pred.shape[-2]
            y_pred = ops.reshape(y_pred, (*ops.shape(y_pred)[:-2], size))
        return batch.replaced(y_true=y_true, y_pred=y_pred, own_axes=0)


def as_rows(batch):
    """The batch with each target as a row of its own, `(..., 1)`.

    Of a `View` the row has k predictions, else one.
    """
    y_true, y_pred = ops.expand_dims(batch.y_true, -1), batch.y_pred
    if not batch.own_axes:
        y_pred = ops.expand_dims(y_pred, -1)
    return batch.replaced(y_true=y_true, y_pred=y_pred, own_axes=0)


def of_single_targets(batch, layout, label):
    """The batch with each target as a row of its own, for the values of single targets."""
    size = batch.y_true.shape[-1]
    return as_rows(View(batch, layout, label).batch).replaced(elements=size)


def _apart(y_pred, size):
    """Blocks of `size` numbers, `(..., k * size)`, as `(..., size, k)`."""
    blocks = ops.reshape(y_pred, (*ops.shape(y_pred)[:-1], y_pred.shape[-1] // size, size))
    return ops.swapaxes(blocks, -1, -2)


def _check_known(label, true, pred):
    """Raises where it is not known how many targets the blocks of predictions belong to."""
    if true[-1] is None or pred[-1] is None:
        raise ValueError(
            f"Component '{label}' tells single targets apart and needs to know how many there are. "
            "Give the shape back in the data set: `tf.ensure_shape(y, (None, 3))` for 3 targets. "
            f"Received: y_true of shape {true} and y_pred of shape {pred}"
        )


def _check(label, true, pred, layout):
    """Raises where predictions do not belong to targets as the layout says."""
    size, width = (shape[-1] if shape else None for shape in (true, pred))
    rows = len(true) == len(pred) and all(
        a == b or a is None or b is None for a, b in zip(true[:-1], pred[:-1], strict=True)
    )
    if rows and (size in (1, None) or (layout == "blocks" and size and width and not width % size)):
        return
    shapes = (
        "(..., k * D), in k blocks of the D targets"
        if layout == "blocks"
        else "(..., D, k), or (..., k) where D is 1"
    )
    raise ValueError(
        f"Component '{label}' has k predictions for each target, and compares targets (..., D) "
        f"with predictions {shapes}; others would be broadcast, which gives a wrong number. "
        f"Received: y_true of shape {true} and y_pred of shape {pred}"
    )
