"""Signatures that name every keyword, where the code has `**kwargs: Unpack[SomeArguments]`."""

import inspect
import typing
from inspect import Parameter, Signature
from typing import Any


def with_keywords(thing: Any) -> Signature | None:
    """The parameters of a class or function; None if it has no such keywords."""
    signature = inspect.signature(thing)
    rest = [p for p in signature.parameters.values() if p.kind is Parameter.VAR_KEYWORD]
    if not rest or typing.get_origin(rest[0].annotation) is not typing.Unpack:
        return None
    arguments = typing.get_args(rest[0].annotation)[0]
    named = [p for p in signature.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    spelled = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=_default(thing, name), annotation=hint)
        for name, hint in typing.get_type_hints(arguments).items()
        if name not in signature.parameters
    ]
    return Signature([*named, *spelled])


def _default(thing: Any, name: str) -> Any:
    """What the keyword is by default: the first class above that has it by name says so."""
    for base in thing.__mro__ if inspect.isclass(thing) else []:
        if "__init__" in vars(base):
            parameter = inspect.signature(vars(base)["__init__"]).parameters.get(name)
            if parameter:
                return parameter.default
    return _Unknown()


class _Unknown:
    """A default that another function chooses."""

    def __repr__(self) -> str:
        return "..."
