"""What Keras's savers walk over, and what their files look like.

Keras 3.15.1: the saver of `.keras` and `.weights.h5` goes through the attributes of a model, public
ones first, each group by the alphabet, and through lists and dicts in them. It meets `model.loss`
there and calls its `save_own_variables`; so it does with every loss inside of that one, once each,
under the attribute by which it meets it first. It passes by all that is neither an object of Keras
nor a container.
"""


def hide(model, name, value):
    """Keeps a value at a model that Keras does not look into.

    Keras 3.15.1: a model tracks what is set by `setattr`; it never looks at its `__dict__` alone.
    """
    model.__dict__[name] = value


def hidden(model, name):
    """What `hide` has kept, or None."""
    return model.__dict__.get(name)


def drop_hidden(model, name):
    """Forgets what `hide` has kept."""
    model.__dict__.pop(name, None)


def complete_config(serialized, key, value):
    """Adds an argument to a serialized object that its `get_config` has left out.

    Keras 3.15.1: the arguments are a dict under `"config"`.
    """
    serialized["config"].setdefault(key, value)


def share(serialized, thing):
    """A serialized object that becomes one with others of the same `thing` when it is loaded.

    Keras 3.15.1: within one file, `"shared_object_id"` tells which objects are one; it is the `id`.
    """
    return {**serialized, "shared_object_id": id(thing)}


def names_in(store):
    """The names of the variables that the store of `load_own_variables` has.

    Keras 3.15.1: it has `keys()`, also where it can neither be iterated over nor asked with `in`.
    """
    return list(store.keys())


def is_beside(store, name):
    """Whether the file has an entry `name` beside the variables of `load_own_variables`.

    Keras 3.15.1: the store is that of the whole file, or of several shards, and remembers at which
    path it stands; `has_path` knows all shards. Keras 3.12 has no `has_path`.
    """
    if not hasattr(store, "h5_file"):
        return False
    path = getattr(store, "_h5_entry_path", "")  # empty for what is saved by itself
    has_path = getattr(store, "has_path", None) or store.h5_file.__contains__
    return has_path(f"{path}/{name}" if path else name)
