"""The names that the formula reader knows: functions, constants, letters, accents and fonts.

Does: map every known spelling to one name. Doesn't: read or compute anything.
"""

from __future__ import annotations


def _named(names: str) -> dict[str, str]:
    return {name: name for name in names.split()}


# Spelling (without a backslash, which plain notation leaves out) -> function name in values.py.
FUNCTIONS = _named("sin cos tan cot sec csc sinh cosh tanh coth ln log exp max min gcd lcm floor ceil abs")
FUNCTIONS |= {f"arc{name}": f"a{name}" for name in _named("sin cos tan cot sec csc sinh cosh tanh")}
FUNCTIONS |= {"lg": "log", "asin": "asin", "acos": "acos", "atan": "atan", "arsinh": "asinh", "arcosh": "acosh"}
FUNCTIONS |= {"artanh": "atanh"}
CONSTANTS = {"pi": "pi", "e": "e", "i": "i", "imath": "i"}
# Letters that stand for functions when a bracket follows.
LETTERS_WITH_ARGUMENTS = frozenset("fghFGH")
GREEK = _named(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho sigma tau upsilon phi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega hbar ell partial nabla odot"
)
GREEK |= {f"var{name}": name for name in ("epsilon", "theta", "rho", "sigma", "phi", "kappa")}
# Commands that plain notation writes without a backslash.
PLAIN = frozenset(("sqrt", "pi", "theta", "alpha", "beta", "lambda", "omega"))
ACCENTS = {
    **dict.fromkeys(("bar", "overline"), "bar"),
    **dict.fromkeys(("vec", "overrightarrow"), "vec"),
    **dict.fromkeys(("hat", "widehat"), "hat"),
    **dict.fromkeys(("tilde", "widetilde"), "tilde"),
    **dict.fromkeys(("dot",), "dot"),
    **dict.fromkeys(("ddot",), "ddot"),
}
FONTS = frozenset(
    (
        "text",
        "textrm",
        "textnormal",
        "mathrm",
        "mathbf",
        "mathit",
        "mathcal",
        "mathbb",
        "mathsf",
        "mbox",
        "operatorname",
    )
)
