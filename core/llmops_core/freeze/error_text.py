"""Say what an exception is without calling its code.

``str(error)`` runs the ``__str__`` of a user's class, on the thread that is failing: it may raise,
block or format a whole prompt. What an exception was made with is in its ``args``, which C holds.
"""

from __future__ import annotations

import types
from typing import Any, Final

from llmops_core.freeze.content import encode_content
from llmops_core.freeze.freezer import Freezer
from llmops_core.freeze.type_names import Fields, layout_of, mro_of, name_of, type_name, vars_of

__all__ = ["describe_error"]

_ARGS: Final = vars(BaseException)["args"].__get__
_FLAGS: Final = vars(type)["__flags__"].__get__
_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, not in C
_FREEZER: Final = Freezer(text_limit=2000, node_limit=200, depth_limit=8)
_LONG: Final = 10_000  # a C __str__ copies its arguments whole; beyond this they are cut instead
_NOT_SHOWN: Final = (
    "__cause__",
    "__context__",
    "__traceback__",
    "__dict__",
    "__suppress_context__",
)
_UNREADABLE: Final = "<unreadable>"
_VALIDATION_ERRORS: Final = 10


def describe_error(error: BaseException, limit: int = 2000) -> tuple[str, str]:
    """Return the type's name and the message, of *limit* characters at most.

    Called on the host's thread; never raises and calls no code of an unknown class. The name is
    ``module.QualName``, or the bare name of a builtin.
    """
    try:
        return type_name(type(error)), _message(error, limit)[: max(limit, 0)]
    except Exception:  # the host is near its recursion limit or out of memory
        return _UNREADABLE, _UNREADABLE


def _message(error: BaseException, limit: int) -> str:
    cls = type(error)
    mro = mro_of(cls)
    args = _ARGS(error)
    if any(name_of(base) == ("pydantic_core._pydantic_core", "ValidationError") for base in mro):
        return _validation_message(error)
    owner = next(base for base in mro if "__str__" in vars_of(base))
    if owner is not BaseException and not _FLAGS(owner) & _HEAP_TYPE and _is_plain(error, mro):
        return str(error)
    if len(args) == 1 and any(base is str for base in mro_of(type(args[0]))):
        return str.__getitem__(args[0], slice(0, max(limit, 0)))
    if not args:
        text = Fields(error, layout_of(cls)).get("message")
        return text if type(text) is str else ""
    freezer = _FREEZER if limit <= 2000 else Freezer(min(limit, 100_000), 2000, 8)
    value: Any = args[0] if len(args) == 1 else args
    return encode_content(freezer.freeze(value)).text


def _is_plain(error: BaseException, mro: tuple[type, ...]) -> bool:
    """Whether the fields that a C ``__str__`` may format are all plain and short."""
    values = [*_ARGS(error)]
    for base in mro:
        if not _FLAGS(base) & _HEAP_TYPE:
            for name, field in vars_of(base).items():
                if not name.startswith("__") and type(field) in _C_FIELDS:
                    values += _read(field, error)
    return all(_is_scalar(value) for value in values)


_C_FIELDS: Final = (types.MemberDescriptorType, types.GetSetDescriptorType)


def _read(field: Any, error: BaseException) -> list[Any]:
    try:
        value = field.__get__(error)
    except (AttributeError, TypeError):  # unset, as the codec fields of a bare UnicodeError
        return []
    return list(value) if type(value) is tuple else [value]


def _is_scalar(value: object) -> bool:
    kind = type(value)  # by identity: a hostile metaclass may define __eq__
    if kind is str or kind is bytes:
        return len(value) <= _LONG  # type: ignore[arg-type]
    return value is None or kind is int or kind is bool or kind is float


def _validation_message(error: Any) -> str:
    """List what pydantic found, without the inputs: their ``repr`` is the user's code."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [
        f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found[:_VALIDATION_ERRORS]
    ]
    more = [f"and {len(found) - len(lines)} more"] if len(found) > len(lines) else []
    return f"{error.title}: " + "; ".join([*lines, *more])
