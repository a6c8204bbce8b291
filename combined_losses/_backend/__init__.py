"""The functions that differ between the frameworks, chosen once for the backend in use."""

import contextlib

import keras

if keras.backend.backend() == "tensorflow":
    from combined_losses._backend.tensorflow import (
        as_one_replica,
        as_written,
        attach,
        capture,
        combine,
        compiled,
        either,
        evaluate_with_rows,
        global_concat,
        global_max,
        global_offset,
        global_sum,
        gradient,
        gramian,
        is_eager,
        is_in_scope,
        largest,
        places_after,
        products,
        read_variable,
        replica_count,
        requiring,
        rows_of,
        sound_gradient,
        squared_distances,
    )
else:

    def requiring(tensor, condition, message):
        """`tensor`; elsewhere all sizes are known, and checked, before it is computed."""
        return tensor

    def is_in_scope(strategy, variable):
        """Whether a variable was made inside the scope of a distribution strategy."""
        return True

    def replica_count():
        """The number of replicas that compute this batch together."""
        return 1

    def read_variable(value):
        """The tensor of a variable of the framework; a tensor as it is."""
        return value

    def as_written(function):
        """A function that is not rewritten when another one that calls it is compiled."""
        return function

    def as_one_replica():
        """In the block Keras and we compute as if there were one replica."""
        return contextlib.nullcontext()

    def global_sum(value):
        """The sum of `value` over all replicas."""
        return value

    def global_concat(value):
        """The rows of `value` of all replicas."""
        return value

    def global_offset(size):
        """How many rows the replicas before this one have."""
        return 0

    def global_max(value):
        """The largest of `value` over all replicas."""
        return value


if keras.backend.backend() == "jax":
    from combined_losses._backend.jax import (
        attach,
        capture,
        combine,
        compiled,
        complete_state,
        either,
        entries,
        evaluate_with_rows,
        gradient,
        gramian,
        is_compiling,
        is_eager,
        is_threaded,
        is_traced,
        largest,
        places_after,
        products,
        restore_state,
        result_in,
        rows_of,
        sound_gradient,
        squared_distances,
    )
else:

    def entries(x, number):
        """The `number` entries of the last axis, each an array of its own."""
        return keras.ops.unstack(x, number, axis=-1)

    def restore_state(model, state):
        """Called after a step that failed: gives variables back the values that it was given."""

    def is_traced(values):
        """Whether values belong to a trace, out of which nothing can be kept."""
        return False

    def complete_state(given, state, tracker):
        """The state that a step returns, with the variables of `tracker`."""
        return state

    def result_in(states, tracker):
        """The result of a metric after a step."""
        return tracker.result()

    def is_compiling():
        """Whether a function is being compiled that reads all state once and for all."""
        return False

    def is_threaded(variable):
        """Whether a function that is compiled is given the value of a variable."""
        return True


if keras.backend.backend() == "torch":

    def is_eager(variables):
        """Whether the values of variables can be looked at."""
        return True

    from combined_losses._backend.torch import (
        attach,
        capture,
        combine,
        compiled,
        either,
        evaluate_with_rows,
        gradient,
        gramian,
        largest,
        lies_within,
        places_after,
        products,
        rows_of,
        sound_gradient,
        squared_distances,
    )
else:

    def lies_within(x, low, high):
        """Whether all numbers lie within bounds, where that is known at once: on torch."""
        return False


__all__ = [
    "as_one_replica",
    "as_written",
    "attach",
    "capture",
    "combine",
    "compiled",
    "complete_state",
    "either",
    "entries",
    "evaluate_with_rows",
    "global_concat",
    "global_max",
    "global_offset",
    "global_sum",
    "gradient",
    "gramian",
    "is_compiling",
    "is_eager",
    "is_in_scope",
    "is_threaded",
    "is_traced",
    "largest",
    "lies_within",
    "places_after",
    "products",
    "read_variable",
    "replica_count",
    "requiring",
    "restore_state",
    "result_in",
    "rows_of",
    "sound_gradient",
    "squared_distances",
]
