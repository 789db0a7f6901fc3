"""Say what an exception is without calling its code.

``str(error)`` runs the ``__str__`` of a user's class, on the thread that is failing: it may raise,
block or format a whole prompt. What an exception was made with is in its ``args``, which C holds.
"""

from __future__ import annotations

import gc
import types
from typing import Any, Final

from llmops_core.freeze.content import encode_content
from llmops_core.freeze.freezer import Freezer
from llmops_core.freeze.type_names import Fields, layout_of, mro_of, name_of, type_name, vars_of

__all__ = ["describe_error"]

_ARGS: Final = vars(BaseException)["args"].__get__
_CHAIN: Final = [vars(BaseException)[name].__get__ for name in ("__cause__", "__context__")]
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
#: How many of pydantic's errors are shown; it renders all or none of them, so of more than
#: _VALIDATION_RENDERED none is.
_VALIDATION_ERRORS: Final = 10
_VALIDATION_RENDERED: Final = 50


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
    for base in mro:
        if name_of(base) == ("pydantic_core._pydantic_core", "ValidationError"):
            return _validation_message(error, vars_of(base))
    owner = _str_owner(mro)
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


def _str_owner(mro: tuple[type, ...]) -> type:
    return next(base for base in mro if "__str__" in vars_of(base))


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


def _validation_message(error: Any, methods: Any) -> str:
    """List what pydantic found, without the inputs: their ``repr`` is the user's code.

    *methods* are those of pydantic's own class, as a subclass may have redefined them.
    """
    title, count = str.__str__(methods["title"].__get__(error)), methods["error_count"](error)
    if count > _VALIDATION_RENDERED or not _renders_plainly(error):
        return f"{title}: {count} validation error{'s' if count > 1 else ''}"
    found = methods["errors"](error, include_url=False, include_context=False, include_input=False)
    lines = [
        f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found[:_VALIDATION_ERRORS]
    ]
    more = [f"and {count - len(lines)} more"] if count > len(lines) else []
    return f"{title}: " + "; ".join([*lines, *more])


def _renders_plainly(error: Any) -> bool:
    """Whether no exception that a validator raised is known to have a ``__str__`` of its own.

    Pydantic renders each error with ``str`` of what the validator raised, and has no way to ask for
    the others alone. What it holds on to it tells the garbage collector, which calls nothing. Older
    versions do not; theirs is rendered all the same, as its fields are what a reader looks for.
    """
    chained = [read(error) for read in _CHAIN]
    return all(
        _has_plain_text(found) or any(found is other for other in chained)
        for found in gc.get_referents(error)
    )


def _has_plain_text(found: Any) -> bool:
    mro = mro_of(type(found))
    if not any(base is BaseException for base in mro):  # an input, which is not rendered
        return True
    return not _FLAGS(_str_owner(mro)) & _HEAP_TYPE and _is_plain(found, mro)
