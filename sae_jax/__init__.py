"""Sparse autoencoders in JAX: a whole ablation study is one program.

What is exported stands in __init__.pyi, one line a name. A name's module is imported when the name is first used
(PEP 562), so that `import sae_jax` and `--help` wait for no library that they do not need.
"""

import ast
import importlib
from pathlib import Path

_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
# name -> module that it is imported from
_EXPORTS = {alias.name: node.module for node in _STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}
__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str) -> object:
    """Import an exported name; later uses find it in the module's namespace.

    Raises:
        AttributeError: the name is not exported.
    """
    if name == "__version__":
        value: object = importlib.import_module("sae_jax.storage.version").version()
    elif name in _EXPORTS:
        module = _EXPORTS[name]
        owner = importlib.import_module(module)
        is_attribute = module != __name__ and hasattr(owner, name)
        value = getattr(owner, name) if is_attribute else importlib.import_module(f"{module}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
