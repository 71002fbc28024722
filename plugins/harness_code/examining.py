"""Tests that come as code, in a confined process of their own: the program under test is reached through stand-ins.

Does: run test text (HumanEval's `check`, MBPP's asserts) in which the names of the program are stand-ins; a call of one
sends its arguments to the program's process and gets plain data, or an exception's class name, back.
Doesn't: hold any of the program's code or objects. An object that is no plain data stays where it is; the tests get a
`Remote` for it, to pass back, call, iterate over or read attributes of. A Remote equals itself alone: what its own
`__eq__` would say is never asked.

`Requests` is the other end, in the program's process.
"""

from __future__ import annotations

import builtins
import itertools
import operator
from collections.abc import Callable, Iterator
from typing import Any

from harness_code import plain

Ask = Callable[[Any], Any]
TESTS = "<tests>"
CLASS_CHARS = 60


class Remote:
    """An object, or a name, of the program under test."""

    def __init__(self, ask: Ask, reference: int | str) -> None:
        object.__setattr__(self, "_do", lambda action, *operands: _do(ask, reference, action, operands))
        object.__setattr__(self, "_reference", reference)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._do("call", arguments, named)

    def __getattr__(self, name: str) -> Any:
        # copy, pickle and the like ask for special names; they must not find the program's.
        if name.startswith("_"):
            raise AttributeError(name)
        return self._do("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._do("set", name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._do("item", key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._do("iterate"))

    def __next__(self) -> Any:
        items = self._do("next")
        if not items:
            raise StopIteration
        return items[0]

    def __len__(self) -> int:
        return operator.index(self._do("length"))

    def __bool__(self) -> bool:
        return self._do("truth") is True


def _do(ask: Ask, reference: int | str, action: str, operands: tuple[Any, ...]) -> Any:
    def refer(value: Any) -> Any:
        if type(value) is Remote:
            return object.__getattribute__(value, "_reference")
        raise TypeError("the tests pass what is no plain data")

    kind, content = ask([action, reference, plain.encode(list(operands), refer)])
    if kind != "raised":
        return plain.decode(content, lambda index: Remote(ask, operator.index(index)))
    error = getattr(builtins, str(content), None)
    # StopIteration would end a loop of the tests, such as all(map(candidate, ...)), as if all were well.
    if isinstance(error, type) and issubclass(error, Exception) and error is not StopIteration:
        raise error
    raise RuntimeError(content)


def examine(setup: str, tests: str, names: list[str], ask: Ask) -> None:
    """Run `tests` in the names of `setup`, with `names` standing for the program's. Raises what a failed test raises."""
    scope: dict[str, Any] = {"__name__": "tests"}
    exec(compile(setup, "<setup>", "exec", dont_inherit=True), scope)
    scope.update((name, Remote(ask, name)) for name in names)
    exec(compile(tests, TESTS, "exec", dont_inherit=True), scope)


def class_name(error: object) -> str:
    """Not `type(error).__name__`: a metaclass of the program's may answer that."""
    return str(type.__dict__["__name__"].__get__(type(error)))[:CLASS_CHARS]


def line_of(error: BaseException) -> int:
    """The line of the tests that an exception passed through; 0: none."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == TESTS:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def known_class(error: BaseException) -> str:
    """The nearest class of an exception that the tests' process has as well."""
    names = [kind.__name__ for kind in type.mro(type(error)) if vars(builtins).get(kind.__name__) is kind]
    return str(names[0])


class Requests:
    """Does what the tests ask, in the process of the program whose names are `scope`."""

    def __init__(self, scope: dict[str, Any]) -> None:
        self._scope = scope
        self._kept: list[Any] = []
        self._actions: dict[str, Callable[..., Any]] = {
            "call": lambda target, arguments, named: target(*arguments, **named),
            "get": getattr,
            "set": setattr,
            "item": operator.getitem,
            "iterate": lambda target: list(itertools.islice(target, plain.MANY_NODES)),
            "next": lambda target: list(itertools.islice(target, 1)),
            "length": len,
            "truth": bool,
        }

    def answer(self, request: Any) -> Any:
        """Plain data, encoded. Raises whatever the program raises."""
        action, reference, operands = request
        target, arguments = self._find(reference), plain.decode(operands, self._find)
        return plain.encode(self._actions[action](target, *arguments), self._keep, nodes=plain.MANY_NODES)

    def _find(self, reference: int | str) -> Any:
        if isinstance(reference, int):
            return self._kept[reference]
        if reference not in self._scope:
            raise NameError(reference)
        return self._scope[reference]

    def _keep(self, value: Any) -> int:
        self._kept.append(value)
        return len(self._kept) - 1
