"""What follows the colon of a source: NAME=VALUE,..."""

from __future__ import annotations

from collections.abc import Sequence

from sae_jax.settings import UserError, unknown


def named_values(what: str, argument: str, known: Sequence[str], example: str) -> dict[str, str]:
    """The words of NAME=VALUE,... by name.

    Args:
        what: stands before the colon.
        argument: stands after it.
        known: names that it may give.
        example: of an argument, for messages.

    Raises:
        UserError: a word is none, or a name is unknown or there twice.
    """
    given = dict[str, str]()
    for part in argument.split(",") if argument.strip() else []:
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise UserError(f"{what} must be followed by NAME=VALUE,...: got {part!r}; as in {what}:{example}")
        if name not in known:
            raise unknown(f"setting of {what}", name, known)
        if name in given:
            raise UserError(f"{name} of {what} must be given once: got it twice; leave one out")
        given[name] = value
    return given
