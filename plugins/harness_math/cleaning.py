r"""One spelling for what means the same: unicode signs, LaTeX synonyms, spacing and delimiters.

Does: `tidy` rewrites notation only (`\dfrac`, `×`, `\left(`, `\,`); `clean` also drops what an answer may carry or leave
out (per cent and degree signs, `\text{}`, the left side of `x = ...`, a last period). All of it is linear in the text.
Doesn't: read anything. Digits other than 0-9 stay what they are, so that they are no number.
"""

from __future__ import annotations

import re
import unicodedata


def _parts(place: int) -> list[str]:
    """The two numbers of a vulgar fraction such as ⅛."""
    return unicodedata.normalize("NFKC", chr(place)).split("\u2044")


_SIGNS = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "—": "-",
        "×": r"\times ",
        "·": r"\cdot ",
        "⋅": r"\cdot ",
        "∙": r"\cdot ",
        "÷": r"\div ",
        "π": r"\pi ",
        "∞": r"\infty ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "≈": r"\approx ",
        "°": r"^\circ ",
        "∪": r"\cup ",
        "∩": r"\cap ",
        "∈": r"\in ",
        "±": r"\pm ",
        "∅": r"\emptyset ",
        "ℝ": r"\mathbb{R}",
        "²": "^2",
        "³": "^3",
        **{
            chr(place): r"\frac{{{}}}{{{}}}".format(*_parts(place))
            for place in (*range(0xBC, 0xBF), *range(0x2150, 0x215F))
        },
        "⟨": r"\langle ",
        "⟩": r"\rangle ",
        "θ": r"\theta ",
        "α": r"\alpha ",
        "β": r"\beta ",
        "λ": r"\lambda ",
        "’": "'",
        "′": "'",
        "\u00a0": " ",
        "\u2009": " ",
        "\u202f": " ",
        "\u200b": "",
        "\ufeff": "",
    }
)
_SYNONYMS = {
    "dfrac": "frac",
    "tfrac": "frac",
    "cfrac": "frac",
    "dbinom": "binom",
    "tbinom": "binom",
    "leq": "le",
    "leqslant": "le",
    "lt": "<",
    "geq": "ge",
    "geqslant": "ge",
    "gt": ">",
    "neq": "ne",
    "lvert": "|",
    "rvert": "|",
    "vert": "|",
    "mid": "|",
    "lbrace": "\\{",
    "rbrace": "\\}",
    "lbrack": "[",
    "rbrack": "]",
    "varnothing": "emptyset",
    "degree": "^\\circ",
    "mathord": "",
    "bigcup": "cup",
    "colon": ":",
    "ast": "*",
    "textdegree": "^\\circ",
    "euro": "€",
    "pounds": "£",
}
_EMPTY = (
    "left|right|bigl|bigr|Bigl|Bigr|biggl|biggr|Biggl|Biggr|big|Big|bigg|Bigg|displaystyle|textstyle|scriptstyle|limits|"
    "hfill|nonumber|large|Large|huge|boldmath|bf|rm|it|normalsize|phantom|strut|notag|checkmark"
)
_DROPPED = re.compile(rf"(?<!\\)\\[!,;:>]|\\(?:{_EMPTY})(?![a-zA-Z])\.?|(?<!\\)\\[()]|(?<!\\)\\[\[\]]|\\?\$|`|\{{,\}}")
_SPACES = re.compile(r"\\(?:quad|qquad|thinspace|enspace|space|hspace\{[^{}]*\})(?![a-zA-Z])|(?<!\\)\\[ \n\t]|~")
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_NOT = re.compile(r"\\not\s?=")
_GROUP = r"((?:[^{}]|\{[^{}]*\})*)"
_OVER = re.compile(rf"\{{{_GROUP}\\over(?![a-zA-Z]){_GROUP}\}}")
_ROOT = re.compile(r"√\s?(?:\(([^()]*)\)|([0-9.]+|[a-zA-Z]))")
_FONT = r"\\(?:mathbf|boldsymbol|bm|pmb|underline|mathit|mathsf|textbf|textit|textsf|emph|bold)\s?"
# A font around more than plain text leaves its group.
_STYLE = re.compile(rf"{_FONT}\{{([^{{}}]*)\}}|{_FONT}(?=\{{)|\\(?:text)?color\s?\{{[a-zA-Z]*\}}")
_WORDS = re.compile(r"\\(?:text|textnormal|textrm|mathrm|mbox|hbox|operatorname)\s?\{([^{}]*)\}")
_CARRIED = re.compile(r"(?<=.)\\?%|\^\s?\{?\s?\\circ\s?\}?")
_LEFT_SIDE = re.compile(r"^[a-zA-Z](?:_\{?\w\}?)?\s*=\s*")


def tidy(text: str) -> str:
    """The same answer in one notation, without math delimiters, sizes, spacing commands and outer emphasis."""
    text = _ROOT.sub(r"\\sqrt{\1\2}", text.translate(_SIGNS)).replace("\\|", "|")
    text = _NOT.sub(r"\\ne ", text.replace("{:}", ":"))
    text = _STYLE.sub(r" \1", _SPACES.sub(" ", _DROPPED.sub("", text)))
    if "\\over" in text:
        text = _OVER.sub(r"\\frac{\1}{\2}", text)
    # One space at most between any two things: patterns with several optional runs of white space stay linear.
    text = " ".join(_COMMAND.sub(_one_name, text).split())
    if text.startswith("**") or text.endswith("**"):
        text = text.strip("*")
    return _ungrouped(text.rstrip("\\ ").strip())


def _ungrouped(text: str) -> str:
    """Without braces around all of it."""
    depth = 0
    for place, character in enumerate(text if text.startswith("{") else ""):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[1:-1].strip() if place == len(text) - 1 else text
    return text


def _one_name(found: re.Match[str]) -> str:
    name = _SYNONYMS.get(found[1])
    if name is None:
        return found[0]
    return "\\" + name if name.isalpha() else name


def clean(text: str) -> str:
    """The text that two equal answers share, if they share one: for comparison, and as the canonical answer."""
    text = _LEFT_SIDE.sub("", _CARRIED.sub("", tidy(text)).strip().rstrip(".,;:"))
    return " ".join(unwrapped(text).split())


def unwrapped(text: str) -> str:
    r"""`\text{...}` and its kin by their content."""
    return _WORDS.sub(r"\1", text)


def squeezed(text: str) -> str:
    """For looking one text up in another: clean, without any white space or optional braces."""
    return re.sub(r"[\s{}]", "", clean(text))
