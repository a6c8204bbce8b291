"""A layer whose `call` is another one for a while."""


def put_call(layer, call):
    """Lets a layer call `call` in the place of its own method.

    Keras 3.15.1: `Layer.__call__` finds `call` at the object. It is put there without `setattr`,
    by which a layer tracks what it is given and refuses some of it after it is built.
    """
    vars(layer)["call"] = call


def restore_call(layer):
    """Takes away what `put_call` has put there."""
    del vars(layer)["call"]
