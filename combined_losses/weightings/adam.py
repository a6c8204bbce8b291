"""Adam, for rules that learn logits of their own."""

from keras import ops

from combined_losses._numerics.arrays import Tensor
from combined_losses.weightings.state import StateTensors


def adam_step(slope: Tensor, state: StateTensors, learning_rate: float) -> StateTensors:
    """One step of Adam down the slope of the logits.

    Args:
        slope: `(k,)`, the gradient of the logits.
        state: a dict with `logits`, `m` and `v`, each `(k,)`, and `moves`, the number of steps.
        learning_rate: the size of the step.

    Returns:
        The same four entries after the step.
    """
    moves = state["moves"] + 1
    m = 0.9 * state["m"] + 0.1 * slope
    v = 0.999 * state["v"] + 0.001 * ops.square(slope)
    step = m / (1 - 0.9**moves) / (ops.sqrt(v / (1 - 0.999**moves)) + 1e-8)
    logits = state["logits"] - float(learning_rate) * step
    return {"logits": logits, "m": m, "v": v, "moves": moves}
