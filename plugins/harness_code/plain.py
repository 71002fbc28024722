"""Plain data as JSON: what crosses the border between a confined process and the one that judges it.

Does: turn values of Python's own types into JSON and back, exactly, within limits of size and depth.
Doesn't: use pickle, marshal, eval or repr, or keep any behaviour of a value: subclasses of the types below go as their
base contents (Counter, namedtuple, IntEnum), so a lying `__eq__` stays behind.

None, bool, str, finite float and small int are themselves; everything else is an array that starts with a tag: ["l", ...]
list, ["t", ...] tuple, ["S", ...] set, ["d", key, value, ...] dict, ["i", hex] large int (decimal conversion is quadratic,
and refused above 4300 digits), ["f", hex] infinities and NaN, ["c", re, im] complex, ["y", hex] bytes, ["q", n, d]
Fraction, ["D", text] Decimal, ["R", start, stop, step] range, ["o", ...] whatever else, where the caller has a use for it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

NODES, MANY_NODES, DEPTH, INT_BITS, RATIO_BITS = 100_000, 1_000_000, 200, 4_000_000, 20_000
_SMALL = 1 << 53
_THEMSELVES = frozenset({type(None), bool, str})
_LEAVES = _THEMSELVES | {int, float}  # what JSON itself has, but for arrays and objects
_COLLISIONS = 100

Refer = Callable[[Any], Any]


def nothing_else(value: Any) -> Any:
    """The `refer` and `resolve` of callers that have no use for anything but plain data."""
    raise TypeError("not plain data")


def encode(value: Any, refer: Refer = nothing_else, *, nodes: int = NODES) -> Any:
    """JSON for `value`, of at most so many parts; what is not plain goes as ["o", refer(value)].

    Raises TypeError for what is not plain, OverflowError for what is too large or too deep (or contains itself).
    """
    return _encode(value, refer, [nodes], DEPTH)


def _encode(value: Any, refer: Refer, nodes: list[int], depth: int) -> Any:
    kind = type(value)
    if kind in _THEMSELVES or (kind is int and -_SMALL < value < _SMALL):
        return value
    if depth < 0:
        raise OverflowError("too deep")
    for base in (kind,) if kind in _SEQUENCES else type.mro(kind):
        if base in _SCALARS:
            return _SCALARS[base](value)
        if base in _SEQUENCES:
            tag, items = _SEQUENCES[base]
            parts = list(items(value))
            nodes[0] -= len(parts)
            if nodes[0] < 0:
                raise OverflowError("too much data")
            return [tag, *[p if type(p) in _THEMSELVES else _encode(p, refer, nodes, depth - 1) for p in parts]]
    return ["o", refer(value)]


def _encode_int(value: int) -> Any:
    if int.bit_length(value) > INT_BITS:
        raise OverflowError("too large an integer")
    exact = int.__pos__(value)
    return exact if -_SMALL < exact < _SMALL else ["i", int.__format__(exact, "x")]


def _encode_float(value: float) -> Any:
    exact = float.__pos__(value)
    return exact if math.isfinite(exact) else ["f", float.hex(exact)]


_SCALARS: dict[type, Callable[[Any], Any]] = {
    bool: lambda value: value is True,
    int: _encode_int,
    float: _encode_float,
    complex: lambda value: ["c", *map(_encode_float, (value.real, value.imag))],
    str: lambda value: str.__add__("", value),
    bytes: lambda value: ["y", bytes.hex(value)],
    bytearray: lambda value: ["y", bytearray.hex(value)],
    range: lambda value: ["R", *map(_encode_int, (value.start, value.stop, value.step))],
    Fraction: lambda value: ["q", *map(_encode_int, (value.numerator, value.denominator))],
    Decimal: lambda value: ["D", Decimal.__str__(value)],
}
_SEQUENCES: dict[type, tuple[str, Callable[[Any], Iterable[Any]]]] = {
    dict: ("d", lambda value: itertools.chain.from_iterable(dict.items(value))),
    list: ("l", list.__iter__),
    tuple: ("t", tuple.__iter__),
    set: ("S", set.__iter__),
    frozenset: ("S", frozenset.__iter__),
}


def decode(data: Any, resolve: Refer = nothing_else) -> Any:
    """The value of `encode`'s JSON, of which nothing is believed.

    Raises ValueError, TypeError, ArithmeticError or LookupError for anything that `encode` would not have written.
    """
    return _decode(data, resolve, DEPTH)


def _decode(data: Any, resolve: Refer, depth: int) -> Any:
    if type(data) is not list:
        if type(data) is dict:
            raise TypeError("not tagged")
        return data
    if depth < 0:
        raise ValueError("too deep")
    tag, *rest = data
    if tag in _PARSERS:
        return _PARSERS[tag](*rest)
    if tag == "o":
        (content,) = rest
        return resolve(content)
    items = [item if type(item) in _LEAVES else _decode(item, resolve, depth - 1) for item in rest]
    if tag == "d":
        return dict(zip(_spread(items[::2]), items[1::2], strict=True))
    return set(_spread(items)) if tag == "S" else _LISTS[tag](items)


def _spread(keys: list[Any]) -> list[Any]:
    """The keys, unless they are chosen to have one hash value: a set of them would take quadratic time to build."""
    if len(keys) - len({hash(key) for key in keys}) > _COLLISIONS:
        raise ValueError("keys collide")
    return keys


def _fraction(numerator: int | list[str], denominator: int | list[str]) -> Fraction:
    parts: list[int] = [decode(numerator), decode(denominator)]
    if any(int.bit_length(part) > RATIO_BITS for part in parts):  # reducing it takes quadratic time
        raise ValueError("too large a fraction")
    return Fraction(*parts)


_PARSERS: dict[str, Callable[..., Any]] = {
    "i": lambda text: int(text, 16),
    "f": float.fromhex,
    "c": lambda real, imaginary: complex(decode(real), decode(imaginary)),
    "y": bytes.fromhex,
    "R": lambda *ends: range(*map(decode, ends)),
    "q": _fraction,
    "D": Decimal,
}
_LISTS: dict[str, Callable[[list[Any]], Any]] = {"l": lambda items: items, "t": tuple}
