"""What Keras's savers walk over, and what their files look like.

Keras 3.15.1: the saver of `.keras` and `.weights.h5` goes through the attributes of a model, public
ones first, each group by the alphabet, and through the lists and dicts among them. Among the
attributes is `model.loss`, whose `save_own_variables` it calls. In the same way it goes on to the
losses inside that loss; it saves each once, under the attribute by which it comes to it first. It
skips what is neither an object of Keras nor a container.
"""

from typing import Any

import keras


def hide(model: keras.Model, name: str, value: Any) -> None:
    """Keeps a value at a model, where Keras does not find it.

    Keras 3.15.1: a model tracks what `setattr` sets; it never reads its `__dict__` directly.
    """
    model.__dict__[name] = value


def drop_hidden(model: keras.Model, name: str) -> None:
    """Forgets the value that `hide` has kept."""
    model.__dict__.pop(name, None)


def complete_config(serialized: dict[str, Any], key: str, value: Any) -> None:
    """Adds an argument to a serialized object whose `get_config` has left it out.

    Keras 3.15.1: the arguments are a dict under `"config"`.
    """
    serialized["config"].setdefault(key, value)


def share(serialized: dict[str, Any], thing: object) -> dict[str, Any]:
    """A serialized `thing`, marked so that all copies of it in a file are loaded as one object.

    Keras 3.15.1: objects in a file with the same `"shared_object_id"`, the `id` of what was saved,
    are loaded as one.
    """
    return {**serialized, "shared_object_id": id(thing)}


def names_in(store: Any) -> list[str]:
    """The names of the variables in the store that `load_own_variables` is given.

    Keras 3.15.1: every store has `keys()`; some can neither be iterated over nor asked with `in`.
    """
    return list(store.keys())


def is_beside(store: Any, name: str) -> bool:
    """Whether the file has an entry `name` beside the variables of `load_own_variables`.

    Keras 3.15.1: the store holds the whole file, or several shards, and the path of the object
    that is being loaded; `has_path` searches all shards. Keras 3.12 has no `has_path`.
    """
    if not hasattr(store, "h5_file"):
        return False
    path = getattr(store, "_h5_entry_path", "")  # empty for an object that is saved alone
    has_path = getattr(store, "has_path", None) or store.h5_file.__contains__
    return bool(has_path(f"{path}/{name}" if path else name))
