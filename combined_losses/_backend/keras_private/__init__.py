"""Everything that combined_losses relies on and Keras does not promise, a named function each.

No other file may use what is private in Keras. Each docstring says what Keras does, and in which
version that was read; tests/test_keras_seams.py tries each function with Keras alone. There is a
file for each idea. They import nothing of ours but names of types, so that a test, or a person, can
try a function by itself.
"""

from combined_losses._backend.keras_private.callbacks import add_callbacks, reads_steps
from combined_losses._backend.keras_private.compiling import (
    behind_loss,
    compile_without_loss,
    compiled_loss_weights,
    forget_loss,
    has_counted_no_loss,
    replace_compile_config,
)
from combined_losses._backend.keras_private.layers import (
    is_rematerialised,
    other_activation,
    put_call,
    restore_call,
)
from combined_losses._backend.keras_private.logits import (
    activation_before,
    keep_logits,
    logits_before,
)
from combined_losses._backend.keras_private.losses import (
    arguments_of_function,
    calls_for_itself,
    function_called_by,
    is_in_compiled_loss,
    is_numbered_name,
    whole_config,
)
from combined_losses._backend.keras_private.masks import mask_of, prepare_masks, put_mask
from combined_losses._backend.keras_private.models import (
    FUNCTIONAL,
    are_functional_arguments,
    copy_dtype_policy,
    output_names,
    put_functional_below,
)
from combined_losses._backend.keras_private.optimizers import (
    inner_optimizer,
    keep_from_weight_decay,
    loss_scale,
)
from combined_losses._backend.keras_private.replicas import replicas_of, strategy_of
from combined_losses._backend.keras_private.saving import (
    complete_config,
    drop_hidden,
    hide,
    is_beside,
    names_in,
    share,
)
from combined_losses._backend.keras_private.steps import (
    batch_of,
    bring_back_state,
    join_result,
    read_state,
    recompile_step,
    replacing_step,
    set_step_function,
    split_result,
    state_given,
    step_function,
    with_metrics,
)
from combined_losses._backend.keras_private.tensorboard import epoch_tags, write_layout
from combined_losses._backend.keras_private.variables import (
    clear_gradient,
    constrain,
    noting_reads,
    seed_state,
    variables_of_layer,
)

READ_IN = "3.15.1"  # the version of Keras whose sources were read for all of this

__all__ = [
    "FUNCTIONAL",
    "READ_IN",
    "activation_before",
    "add_callbacks",
    "are_functional_arguments",
    "arguments_of_function",
    "batch_of",
    "behind_loss",
    "bring_back_state",
    "calls_for_itself",
    "clear_gradient",
    "compile_without_loss",
    "compiled_loss_weights",
    "complete_config",
    "constrain",
    "copy_dtype_policy",
    "drop_hidden",
    "epoch_tags",
    "forget_loss",
    "function_called_by",
    "has_counted_no_loss",
    "hide",
    "inner_optimizer",
    "is_beside",
    "is_in_compiled_loss",
    "is_numbered_name",
    "is_rematerialised",
    "join_result",
    "keep_from_weight_decay",
    "keep_logits",
    "logits_before",
    "loss_scale",
    "mask_of",
    "names_in",
    "noting_reads",
    "other_activation",
    "output_names",
    "prepare_masks",
    "put_call",
    "put_functional_below",
    "put_mask",
    "read_state",
    "reads_steps",
    "recompile_step",
    "replace_compile_config",
    "replacing_step",
    "replicas_of",
    "restore_call",
    "seed_state",
    "set_step_function",
    "share",
    "split_result",
    "state_given",
    "step_function",
    "strategy_of",
    "variables_of_layer",
    "whole_config",
    "with_metrics",
    "write_layout",
]
