"""Adam for what a rule learns by itself."""

from keras import ops


def adam_step(slope, state, learning_rate):
    """The state `logits`, `m`, `v`, `moves` after one step down the slope of the logits."""
    moves = state["moves"] + 1
    m = 0.9 * state["m"] + 0.1 * slope
    v = 0.999 * state["v"] + 0.001 * ops.square(slope)
    step = m / (1 - 0.9**moves) / (ops.sqrt(v / (1 - 0.999**moves)) + 1e-8)
    logits = state["logits"] - float(learning_rate) * step
    return {"logits": logits, "m": m, "v": v, "moves": moves}
