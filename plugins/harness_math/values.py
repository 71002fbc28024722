r"""What formulas are worth: two of them are equal when they agree wherever they are tried.

Does: evaluate trees at fixed points, exactly in fractions as long as that is possible and otherwise to 60 digits; compare
formulas with symbols at seven points, at whole ones where floors or factorials ask for that.
Doesn't: simplify. That two different formulas of an answer's size agree at all points to 40 digits does not happen by
chance; that simplification misses an equality, or does not return, does (notes in README.md).

Sizes are bounded before anything is computed: a power or factorial that would have too many digits is `TooLarge`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeAlias

from harness_math.numerals import Number
from harness_math.tokens import TooLarge
from harness_math.trees import Node

DIGITS, AGREE = 60, 40
EXACT_BITS = 1 << 16
MAX_BITS = 10**8
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71)
_WHOLE_ONLY = frozenset(("floor", "ceil", "factorial", "binom", "gcd", "lcm"))
_POSITIVE, _SIGNED, _WHOLE = range(4), range(4, 7), range(12)

# A Fraction, or a number of mpmath, which has no types.
Value: TypeAlias = Any


class Undefined(Exception):
    """No value at this point: a division by zero, a logarithm of zero, a factorial of -1."""


@lru_cache(maxsize=1)
def _context() -> Any:
    """Our own mpmath context: the module's shared one belongs to everyone."""
    from mpmath.ctx_mp import MPContext  # type: ignore[import-untyped]

    context = MPContext()
    context.dps = DIGITS
    return context


def equal(expected: Node, given: Node) -> bool | None:
    """None where that cannot be told: no value at most points. Raises TooLarge."""
    names = sorted(symbols(expected) | symbols(given))
    if not names:
        return _agree({}, expected, given)
    verdicts = [_agree(point(names, place), expected, given) for place in _POSITIVE]
    verdicts += [_agree(point(names, place), expected, given, real=True) for place in _SIGNED]
    if (False in verdicts or verdicts.count(True) < 3) and (_whole_only(expected) or _alternates(given)):
        verdicts = [_agree(whole_point(names, place), expected, given) for place in _WHOLE]
    if False in verdicts:
        return False
    return True if verdicts.count(True) >= 3 else None


def proportional(expected: Node, given: Node) -> bool | None:
    """Whether given / expected is one constant: then `expected = 0` and `given = 0` are one equation."""
    names = sorted(symbols(expected) | symbols(given))
    ratios = []
    for place in range(7):
        try:
            above, below = (evaluate(node, point(names, place)) for node in (given, expected))
            ratios.append(_divide(above, below))
        except Undefined:
            continue
    if len(ratios) < 3:
        return None
    return all(_close(ratio, ratios[0]) for ratio in ratios) and not _close(ratios[0], Fraction(0))


def sign_of_ratio(expected: Node, given: Node) -> int:
    """The sign of given / expected at the first point where it has one."""
    names = sorted(symbols(expected) | symbols(given))
    for place in range(7):
        try:
            ratio = _divide(evaluate(given, point(names, place)), evaluate(expected, point(names, place)))
        except Undefined:
            continue
        return 1 if _real(ratio) > 0 else -1
    return 0


def constant(node: Node) -> Value | None:
    """The value of a formula without symbols; None when it has symbols or no value."""
    if symbols(node):
        return None
    try:
        return evaluate(node, {})
    except Undefined:
        return None


def stands_for(number: Number, node: Node) -> bool:
    """Whether a written number is the value of a formula: exactly, or with six significant digits."""
    value = constant(node)
    if value is None:
        return False
    exact = number.value / 100 if number.percent else number.value
    if _close(value, exact) or (not isinstance(value, Fraction) and _close(value, number.value)):
        return True
    if number.unit is None or abs(number.value) < number.unit * 10**5 or _complex(value):
        return False
    return bool(abs(_inexact(value) - _inexact(number.value)) * 2 <= _inexact(number.unit))


def symbols(node: Node) -> frozenset[str]:
    own = {node.name} if node.kind == "symbol" and node.name not in ("\\pi", "\\e", "\\i") else set()
    return frozenset(own.union(*(symbols(part) for part in node.parts)))


def renamed(node: Node, old: str, new: str) -> Node:
    if node.kind == "symbol" and node.name == old:
        return node._replace(name=new)
    return node._replace(parts=tuple(renamed(part, old, new) for part in node.parts))


def _whole_only(node: Node) -> bool:
    """Floors and factorials are about whole numbers, and so is (-1)^n."""
    if node.kind == "call" and node.name in _WHOLE_ONLY:
        return True
    return _alternates(node) or any(_whole_only(part) for part in node.parts)


def _alternates(node: Node) -> bool:
    """(-1)^n, somewhere."""
    if node.kind == "pow" and constant(node.parts[0]) == -1 and symbols(node.parts[1]):
        return True
    return any(_alternates(part) for part in node.parts)


def point(names: list[str], place: int) -> Mapping[str, Fraction]:
    """Positive fractions between 0.2 and 4 at the first four places, of both signs after them."""
    values = {}
    for index, name in enumerate(names):
        step = 5 * place + 3 * index
        value = Fraction(_PRIMES[(step + 4) % 20], _PRIMES[(step + 7 * (index % 2) + place + 6) % 20] + 1)
        values[name] = -value if place in _SIGNED and (index + place) % 3 else value
    return values


def whole_point(names: list[str], place: int) -> Mapping[str, Fraction]:
    return {name: Fraction(place + 1 + (place * index + 2 * index) % 5) for index, name in enumerate(names)}


def _agree(at: Mapping[str, Fraction], expected: Node, given: Node, *, real: bool = False) -> bool | None:
    """With `real`, a place where either leaves the real numbers says nothing: roots and logarithms have branches."""
    try:
        left, right = evaluate(expected, at), evaluate(given, at)
    except Undefined:
        return None
    if real and (_complex(left) or _complex(right)):
        return None
    return _close(left, right)


def _close(left: Value, right: Value) -> bool:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left == right
    a, b = _inexact(left), _inexact(right)
    scale = max(abs(a), abs(b))
    return bool(abs(a - b) <= scale * _context().mpf(10) ** -AGREE or scale < _context().mpf(10) ** -(AGREE + 10))


def _inexact(value: Value) -> Value:
    context = _context()
    return context.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _complex(value: Value) -> bool:
    return not isinstance(value, Fraction) and bool(abs(value.imag) > abs(value) * _context().mpf(10) ** -AGREE)


def _real(value: Value) -> Value:
    return _inexact(value).real


def evaluate(node: Node, at: Mapping[str, Fraction]) -> Value:
    """Raises Undefined and TooLarge."""
    try:
        return _evaluate(node, at)
    except (ZeroDivisionError, ValueError, OverflowError, TypeError) as error:
        raise Undefined(str(error)) from error


def _evaluate(node: Node, at: Mapping[str, Fraction]) -> Value:
    if node.kind == "number":
        return node.number
    if node.kind == "symbol":
        return _constant_named(node.name) if node.name in ("\\pi", "\\e", "\\i") else at[node.name]
    parts = [_evaluate(part, at) for part in node.parts]
    if node.kind == "add":
        return _fold(parts, lambda a, b: a + b)
    if node.kind == "mul":
        return _fold(parts, lambda a, b: a * b)
    if node.kind == "div":
        return _divide(*parts)
    if node.kind == "pow":
        return _power(*parts)
    if node.kind == "root":
        return _power(parts[1], _divide(Fraction(1), parts[0]))
    return _call(node.name, parts)


def _constant_named(name: str) -> Value:
    context = _context()
    return context.j if name == "\\i" else +(context.pi if name == "\\pi" else context.e)


def _fold(parts: list[Value], operation: Callable[[Value, Value], Value]) -> Value:
    total = parts[0]
    for part in parts[1:]:
        if isinstance(total, Fraction) != isinstance(part, Fraction):
            total, part = _inexact(total), _inexact(part)
        total = _bounded(operation(total, part))
    return total


def _bounded(value: Value) -> Value:
    if isinstance(value, Fraction) and value.numerator.bit_length() + value.denominator.bit_length() > 4 * EXACT_BITS:
        raise TooLarge("an exact value of too many digits")
    return value


def _divide(above: Value, below: Value) -> Value:
    if isinstance(above, Fraction) and isinstance(below, Fraction):
        return above / below
    below = _inexact(below)
    if below == 0:
        raise Undefined("division by zero")
    return _inexact(above) / below


def _power(base: Value, exponent: Value) -> Value:
    if base == 0 and exponent == 0:
        raise Undefined("0^0")
    context = _context()
    if isinstance(exponent, Fraction):
        bits = context.mag(_inexact(base)) if base != 0 else 0
        if abs(exponent) * max(1, abs(int(bits))) > MAX_BITS:
            raise TooLarge("a power of too many digits")
        if isinstance(base, Fraction):
            return _fraction_power(base, exponent)
        if exponent.denominator == 1:
            return base ** int(exponent)
    size = context.mag(exponent) if exponent != 0 else 0
    if (
        size > 60
        or abs(_inexact(exponent)) * max(1, abs(int(context.mag(_inexact(base)) if base != 0 else 0))) > MAX_BITS
    ):
        raise TooLarge("a power of too many digits")
    return context.power(_inexact(base), _inexact(exponent))


def _fraction_power(base: Fraction, exponent: Fraction) -> Value:
    context = _context()
    if exponent.denominator == 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(exponent) <= EXACT_BITS:
            return base ** int(exponent)
        return _inexact(base) ** int(exponent)
    if base < 0 and exponent.denominator % 2:  # the real root: \sqrt[3]{-8} is -2
        size = context.power(_inexact(-base), _inexact(exponent))
        return -size if exponent.numerator % 2 else size
    return context.power(_inexact(base), _inexact(exponent))


def _call(name: str, arguments: list[Value]) -> Value:
    context = _context()
    if name in ("factorial", "binom", "floor", "ceil", "gcd", "lcm", "max", "min", "abs"):
        return _arithmetic(name, arguments)
    values = [_inexact(value) for value in arguments]
    if name == "degrees":
        return values[0] * context.pi / 180
    if name == "log":
        return context.log(values[0]) / context.log(values[1])
    if name in "fghFGH":  # an unknown function: one arbitrary smooth value for every argument
        return context.sin(values[0] * (7 + "fghFGH".index(name))) + values[0] ** 2 / 3
    if name == "exp":
        return _power(+context.e, arguments[0])
    if abs(context.mag(values[0]) if values[0] != 0 else 0) > 10_000:
        raise TooLarge("the argument of a function")
    return getattr(context, name)(values[0])


def _arithmetic(name: str, arguments: list[Value]) -> Value:
    first, *rest = arguments
    if name == "abs":
        return abs(first)
    if name == "factorial":
        return _factorial(first)
    if name == "binom":
        return _binomial(first, rest[0])
    if name in ("max", "min"):
        return (max if name == "max" else min)(arguments, key=_real)
    if name in ("gcd", "lcm"):
        if not all(isinstance(value, Fraction) and value.denominator == 1 for value in arguments):
            raise Undefined(f"{name} of fractions")
        return Fraction((math.gcd if name == "gcd" else math.lcm)(*(int(value) for value in arguments)))
    if _complex(first):
        raise Undefined(name)
    if isinstance(first, Fraction):
        return Fraction(math.floor(first) if name == "floor" else math.ceil(first))
    if abs(_context().mag(first) if first != 0 else 0) > EXACT_BITS:
        raise TooLarge(name)
    # Roots of squares are whole up to rounding: 2.999... is 3.
    near = int(_context().nint(first.real))
    if abs(first - near) < _context().mpf(10) ** -AGREE:
        return Fraction(near)
    return Fraction(int(getattr(_context(), name)(first.real)))


def _factorial(value: Value) -> Value:
    if isinstance(value, Fraction) and value.denominator == 1:
        if value < 0:
            raise Undefined("a factorial of a negative number")
        if value <= 5000:
            return Fraction(math.factorial(int(value)))
    if abs(_inexact(value)) > 10**6:
        raise TooLarge("a factorial of too many digits")
    return _context().gamma(_inexact(value) + 1)


def _binomial(n: Value, k: Value) -> Value:
    if all(isinstance(value, Fraction) and value.denominator == 1 and 0 <= value <= 5000 for value in (n, k)):
        return Fraction(math.comb(int(n), int(k)))
    if max(abs(_inexact(n)), abs(_inexact(k))) > 10**6:
        raise TooLarge("a binomial of too many digits")
    return _context().binomial(_inexact(n), _inexact(k))
