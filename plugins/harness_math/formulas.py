r"""Formulas as trees: a small reader of LaTeX and plain notation.

Does: read sums, products, powers, roots, fractions, factorials, binomials, elementary functions, bars and floors over
numbers and symbols. Its work is bounded by the number of tokens and the depth of brackets, both checked first.
Doesn't: compute (values.py), know sets, tuples or equations (shapes.py), or call anything by a name found in the text:
a name that it does not know is a symbol or, in prose, `Unread`.

What is ambiguous in print is read in one way for both sides: a letter before a bracket is a factor, except f, g and h,
which are functions; a fraction of differentials is one symbol; i is the imaginary unit and e Euler's number.
"""

from __future__ import annotations

import re
from fractions import Fraction

from harness_math.cleaning import tidy
from harness_math.symbols import ACCENTS, CONSTANTS, FONTS, FUNCTIONS, GREEK, LETTERS_WITH_ARGUMENTS
from harness_math.tokens import DIGITS, MAX_DEPTH, TooLarge, Unread, split
from harness_math.trees import Node, negative, number, over, product_of

MAX_TOWER = 8
_NAME = re.compile(r"[a-zA-Z0-9+\-* ']{1,40}")
_DIFFERENTIAL = re.compile(r"(?:d|\\partial)(?:\^\{?[0-9]\}?)?(?![0-9]).*")
_CLOSING = {"(": ")", "[": "]", "{": "}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil", "\\{": "\\}"}
_TIMES = {"*", "\\times", "\\cdot"}
_OVER = {"/", "\\div", ":"}


def read_formula(text: str) -> Node:
    """Raises Unread and TooLarge."""
    tokens = split(tidy(text))
    reader = _Reader(tokens)
    node = reader.sum()
    if reader.place < len(tokens):
        raise Unread(f"cannot go on at {tokens[reader.place]}")
    return node


class _Reader:
    """Recursive descent. Every method consumes at least one token or raises, so the work is linear in the tokens."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.place = 0
        self.bars = 0
        self.depth = 0

    @property
    def next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self) -> str:
        token = self.next
        if not token:
            raise Unread("the end")
        self.place += 1
        return token

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise Unread(f"no {token}")

    def sum(self) -> Node:
        terms = [self.product()]
        while self.next in ("+", "-"):
            minus = self.take() == "-"
            term = self.product()
            terms.append(negative(term) if minus else term)
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def product(self) -> Node:
        node = self.signed()
        while True:
            if self.next in _OVER:
                self.take()
                node = over(node, self.signed())
            elif self.next in _TIMES:
                self.take()
                node = product_of(node, self.signed())
            elif self.starts_factor():
                node = self.joined(node)
            else:
                return node

    def joined(self, left: Node) -> Node:
        r"""Side by side: a product, except 3\frac{1}{2}, which is a mixed number."""
        if self.next[0] in DIGITS and self.tokens[self.place - 1][0] in DIGITS:
            raise Unread("two numbers side by side")
        mixed = left.kind == "number" and left.number.denominator == 1 and self.next == "\\frac"
        right = self.power()
        if mixed and right.kind == "div" and all(part.kind == "number" for part in right.parts):
            return Node("add", (left, right))
        return product_of(left, right)

    def starts_factor(self) -> bool:
        token = self.next
        if token == "|":
            return self.bars == 0
        return bool(token) and (token[0].isalnum() or token[0] == "." or token in _CLOSING or self.is_named(token))

    def is_named(self, token: str) -> bool:
        name = token[1:]
        return token[0] == "\\" and (
            name in FUNCTIONS
            or name in GREEK
            or name in CONSTANTS
            or name in ACCENTS
            or name in FONTS
            or name in ("frac", "sqrt", "binom")
        )

    def signed(self) -> Node:
        signs = 0
        while self.next in ("+", "-"):
            signs += self.take() == "-"
        node = self.power()
        return negative(node) if signs % 2 else node

    def power(self) -> Node:
        node = self.postfixed(self.atom())
        while self.next == "^":
            self.take()
            if self.next == "\\circ" or self.tokens[self.place : self.place + 3] == ["{", "\\circ", "}"]:
                self.place += 1 if self.next == "\\circ" else 3
                node = Node("call", (node,), "degrees")
            else:
                node = self.postfixed(Node("pow", (node, self.exponent())))
        return node

    def exponent(self) -> Node:
        """Of x^y^z as well, which plain notation allows and LaTeX does not."""
        minus = [False]
        tower: list[Node] = []
        while True:
            while self.next in ("-", "+"):
                minus[-1] ^= self.take() == "-"
            tower.append(self.atom())
            if self.next != "^" or self.tokens[self.place + 1 : self.place + 2] == ["\\circ"]:
                break
            self.take()
            minus.append(False)
        if len(tower) > MAX_TOWER:
            raise TooLarge(f"{len(tower)} powers on one another")
        node = tower.pop()
        while tower:
            node = Node("pow", (tower.pop(), negative(node) if minus.pop() else node))
        return negative(node) if minus.pop() else node

    def postfixed(self, node: Node) -> Node:
        while self.next in ("!", "'"):
            if self.take() == "'":
                if node.kind != "symbol":
                    raise Unread("'")
                node = node._replace(name=node.name + "'")
            else:
                if self.next == "!":
                    raise Unread("!!")
                node = Node("call", (node,), "factorial")
        return node

    def atom(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge(f"nested {self.depth} deep")
        node = self.atom_at(self.take())
        self.depth -= 1
        return node

    def atom_at(self, token: str) -> Node:
        if token[0] in DIGITS:
            return self.literal(token)
        if token.isalpha():
            return self.letter(token)
        if token == "|":
            return self.absolute()
        if token in _CLOSING:
            return self.group(token)
        if token[0] == "\\":
            return self.command(token[1:])
        raise Unread(token)

    def literal(self, token: str) -> Node:
        if self.next == "_" or token == ".":
            raise Unread(token)
        if len(token) > 1000:
            raise TooLarge(f"{len(token)} digits")
        whole, _, decimals = token.partition(".")
        return number(Fraction(int(whole + decimals or "0"), 10 ** len(decimals)))

    def letter(self, letter: str) -> Node:
        if len(letter) > 1:
            raise Unread(letter)
        if letter in LETTERS_WITH_ARGUMENTS and self.next == "(":
            self.take()
            return Node("call", (self.group("("),), letter)
        if letter in CONSTANTS and self.next not in ("_", "'"):
            return Node("symbol", name="\\" + letter)
        value = self.tokens[self.place : self.place + 3]
        if len(value) == 3 and value[0] == "(" and value[1][0] in DIGITS and value[2] == ")":
            self.place += 3  # I(0) is a value of I, not a product with nought
            letter += f"({value[1]})"
        return self.symbol(letter)

    def symbol(self, name: str) -> Node:
        if self.next == "_":
            self.take()
            name += "_" + self.label()
        if self.tokens[self.place : self.place + 3] == ["^", "{", "\\prime"]:
            primes = self.tokens[self.place + 2 :]
            count = next((i for i, token in enumerate(primes) if token != "\\prime"), len(primes))
            if primes[count : count + 1] == ["}"]:
                self.place += count + 3
                name += "'" * count
        return Node("symbol", name=name)

    def label(self) -> str:
        """A subscript or the argument of an accent, as text."""
        if self.next != "{":
            return self.take()
        self.take()
        start, depth = self.place, 1
        while depth:
            token = self.take()
            depth += (token == "{") - (token == "}")
        return "".join(token for token in self.tokens[start : self.place - 1] if token not in "{}")

    def absolute(self) -> Node:
        self.bars += 1
        inner = self.sum()
        self.expect("|")
        self.bars -= 1
        return Node("call", (inner,), "abs")

    def group(self, opening: str) -> Node:
        bars, self.bars = self.bars, 0
        inner = self.sum()
        self.expect(_CLOSING[opening])
        self.bars = bars
        if opening == "\\{":
            raise Unread("a set")
        name = {"\\lfloor": "floor", "\\lceil": "ceil"}.get(opening)
        return Node("call", (inner,), name) if name else inner

    def command(self, name: str) -> Node:
        if name == "frac":
            return self.fraction()
        if name == "sqrt":
            return self.root()
        if name == "binom":
            return Node("call", (self.argument(), self.argument()), "binom")
        if name in FUNCTIONS:
            return self.function(name)
        if name in CONSTANTS:
            return Node("symbol", name="\\" + CONSTANTS[name])
        if name in GREEK:
            return self.symbol("\\" + GREEK[name])
        if name in ACCENTS:
            return self.symbol(f"{ACCENTS[name]}:{self.label()}")
        if name in FONTS:
            return self.words(name)
        raise Unread("\\" + name)

    def words(self, font: str) -> Node:
        text = self.label()
        if not _NAME.fullmatch(text):
            raise Unread(text)
        if font == "operatorname" and text in FUNCTIONS:
            return self.function(text)
        return self.letter(text) if len(text) == 1 else self.symbol(text)

    def argument(self) -> Node:
        r"""One braced group, or in \frac12 one digit."""
        token = self.next
        if token.isdigit() and len(token) > 1:
            self.tokens[self.place] = token[1:]
            return number(int(token[0]))
        return self.atom()

    def fraction(self) -> Node:
        start = self.place
        above = self.argument()
        middle = self.place
        below = self.argument()
        texts = ["".join(self.tokens[a:b]).strip("{}") for a, b in ((start, middle), (middle, self.place))]
        if all(_DIFFERENTIAL.fullmatch(text) for text in texts):
            return Node("symbol", name="/".join(texts))
        return Node("div", (above, below))

    def root(self) -> Node:
        index = number(2)
        if self.next == "[":
            self.take()
            index = self.group("[")
        # \sqrt51 means 51 to whoever writes it, if not to LaTeX.
        return Node("root", (index, self.atom()))

    def function(self, name: str) -> Node:
        name = FUNCTIONS[name]
        base = self.subscript()
        exponent = self.superscript()
        base = base or self.subscript()
        arguments = self.arguments(name)
        if name == "log":
            arguments += (base or number(10),)
        elif base is not None:
            raise Unread("a subscript on a function")
        if exponent == negative(number(1)) and f"a{name}" in FUNCTIONS.values():
            return Node("call", arguments, "a" + name)
        call = Node("call", arguments, name)
        return call if exponent is None else Node("pow", (call, exponent))

    def subscript(self) -> Node | None:
        if self.next != "_":
            return None
        self.take()
        return self.argument()

    def superscript(self) -> Node | None:
        if self.next != "^":
            return None
        self.take()
        return self.exponent()

    def arguments(self, name: str) -> tuple[Node, ...]:
        if name in ("max", "min", "gcd", "lcm") and self.next in ("(", "\\{"):
            closing = _CLOSING[self.take()]
            parts = [self.sum()]
            while self.next == ",":
                self.take()
                parts.append(self.sum())
            self.expect(closing)
            return tuple(parts)
        if self.next in _CLOSING or self.next == "|":
            return (self.postfixed(self.atom()),)
        return (self.implicit(),)

    def implicit(self) -> Node:
        r"""What a function without brackets applies to: in \sin 2t \cos t it is 2t."""
        signs = self.next == "-" and bool(self.take())
        node = self.power()
        while self.starts_factor() and self.next[1:] not in FUNCTIONS:
            node = self.joined(node)
        return negative(node) if signs else node
