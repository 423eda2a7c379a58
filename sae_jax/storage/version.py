"""The version of this package."""

import contextlib
from pathlib import Path


def version() -> str:
    """The version of the installed distribution; in a clone that is not installed, that of its pyproject.toml."""
    from importlib import metadata

    try:
        return metadata.version("sae-jax")
    except metadata.PackageNotFoundError:
        import tomllib

        with contextlib.suppress(OSError):
            project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
            return str(project["project"]["version"])
        return "unknown"
