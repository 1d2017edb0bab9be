"""What is said of a name that nobody knows."""

import difflib
from collections.abc import Iterable


def unknown(what: str, word: object, known: Iterable[str]) -> str:
    """Say that a word is not known, and offer the nearest that is.

    Example:
        >>> unknown("network", "vgg61", ["vgg16", "resnet18"])
        "unknown network 'vgg61'; did you mean 'vgg16'? There are: vgg16, resnet18."
    """
    known = list(known)
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {word!r}{hint} There are: {', '.join(known)}."
