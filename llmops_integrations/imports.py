"""Call a function once a module has been imported, without importing it.

The standard library only: ``llmops run`` loads this in every child process of a program.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

__all__ = ["forget", "when_imported"]

Then = Callable[[ModuleType], None]


def when_imported(name: str, then: Then) -> None:
    """Call *then* with a module right after its code has run: now, if it has been imported.

    It is called on the importing thread, once for each time that the module's code runs, and must
    not raise.
    """
    _watcher.wanted.setdefault(name, []).append(then)
    if _watcher not in sys.meta_path:
        sys.meta_path.insert(0, _watcher)
    module = sys.modules.get(name)
    # One whose code is running now is told of by its loader, if it was watched by then.
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        then(module)


def forget(name: str, then: Then) -> None:
    """Do not call *then* any more."""
    waiting = _watcher.wanted.get(name, [])
    if then in waiting:
        waiting.remove(then)
    if not waiting:
        _watcher.wanted.pop(name, None)
    if not _watcher.wanted and _watcher in sys.meta_path:
        sys.meta_path.remove(_watcher)


class _Watcher(MetaPathFinder):
    """Lets the other finders find a module, and puts a loader that tells around its loader."""

    def __init__(self) -> None:
        self.wanted: dict[str, list[Then]] = {}
        self._busy = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.wanted or getattr(self._busy, "name", None) == fullname:
            return None
        self._busy.name = fullname
        try:
            spec = self._find(fullname, path, target)
        finally:
            self._busy.name = None
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Telling(spec.loader, self)
        return spec

    def _find(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(name, path, target)
            if spec is not None:
                return spec
        return None

    def tell(self, module: ModuleType) -> None:
        """Call what waits for a module."""
        for then in tuple(self.wanted.get(module.__name__, ())):
            then(module)


class _Telling(Loader):
    """Loads as the loader that it stands for, takes itself out, and tells when the code has run."""

    def __init__(self, loader: Any, watcher: _Watcher) -> None:
        self._loader = loader
        self._watcher = watcher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._watcher.tell(module)


_watcher: Final = _Watcher()
