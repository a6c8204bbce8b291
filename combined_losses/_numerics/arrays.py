"""Names for the types of arrays. To a type checker each is Any: no backend is imported here."""

from collections.abc import Callable
from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the backend that Keras runs on."""

ArrayLike: TypeAlias = Any
"""A tensor of the backend, a NumPy array, a number, or nested lists of numbers."""

Dtype: TypeAlias = Any
"""The name of a dtype, a `keras.DTypePolicy`, or None for Keras's default."""

Once: TypeAlias = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
"""`once(function, array)` is `function(array)`, computed once for several losses."""
