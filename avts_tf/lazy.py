"""TensorFlow, imported when something of it is first asked for.

It takes seconds to load. What programs import before they have read their flags takes it from here,
so that --help and a mistyped flag are answered at once.
"""

import importlib
import types
from typing import TYPE_CHECKING, Any


class _LazyModule(types.ModuleType):
    """Stands for a module and imports it when it is first used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = _LazyModule('tensorflow')
