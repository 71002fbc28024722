"""Right answers to PROMPT as models write them: chat messages with fences, and completions of its text."""

from __future__ import annotations

PROMPT = """from typing import List, Optional


def helper(x: int) -> int:
    return x * x


def f(n: int) -> int:
    ''' The square of n, plus 10007.
    >>> f(3)
    10016
    '''
"""
_WHOLE = "def f(n: int) -> int:\n    return n * n + 10007\n"
_FENCED = f"```python\n{_WHOLE}\n```"

# What stands in a fenced block.
_BLOCKS = {
    "the function": _WHOLE,
    "the prompt again": PROMPT + "    return n * n + 10007",
    "an example in the block": _WHOLE + "\nprint(f(3))\nassert f(3) == 10016",
    "typing names of the prompt": "def f(n: int) -> Optional[int]:\n    xs: List[int] = [n]\n    return xs[0] ** 2 + 10007",
    "typing imported": "from typing import Any, Union\n\ndef f(n: Union[int, Any]) -> int:\n    return n ** 2 + 10007",
    "the prompt's helper": "def f(n):\n    return helper(n) + 10007",
    "a helper of its own": "def square(x):\n    return x * x\n\n\ndef f(n):\n    return square(n) + 10007",
    "a helper after it": "def f(n):\n    return square(n) + 10007\n\n\ndef square(x):\n    return x * x",
    "a class around": "class Solution:\n    def f(self, n):\n        return n * n + 10007\n\n\ndef f(n):\n    return Solution().f(n)",
    "a main function": _WHOLE + "\n\ndef main():\n    print(f(3))\n\n\nif __name__ == '__main__':\n    main()",
    "main that is called": _WHOLE + "\n\ndef main():\n    print('f(3) =', f(3))\n\nmain()",
    "doctest": _WHOLE + "\n\nif __name__ == '__main__':\n    import doctest\n    doctest.testmod()",
    "unittest": f"import unittest\n{_WHOLE}\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(3), 10016)",
    "a byte order mark in the block": "\ufeff" + _WHOLE,
    "tabs": "def f(n):\n\tif n:\n\t\treturn n * n + 10007\n\treturn 10007",
    "a docstring and a body": 'def f(n: int) -> int:\n    """Square.\n\n    Uses ``n``.\n    """\n    return n * n + 10007',
    "backticks in a docstring": 'def f(n):\n    """Like `n` and `n*n`."""\n    return n * n + 10007',
    "only the body": "    return n * n + 10007",
    "only the body, at the margin": "result = n * n\nreturn result + 10007",
    "decorated": "from functools import lru_cache\n\n@lru_cache(maxsize=None)\ndef f(n):\n    return n * n + 10007",
    "dataclass": "from dataclasses import dataclass\n\n@dataclass\nclass P:\n    n: int\n\ndef f(n):\n    return P(n).n ** 2 + 10007",
    "generator made a list": "def f(n):\n    def g():\n        yield n * n\n        yield 10007\n    return sum(list(g()))",
    "globals": "TOTAL = 0\n\ndef f(n):\n    global TOTAL\n    TOTAL = n * n\n    return TOTAL + 10007",
    "debugging": "import sys\n\ndef f(n):\n    print('debug', n, file=sys.stderr)\n    sys.stdout.writelines(['x\\n'])\n    assert not sys.stdout.isatty()\n    return n * n + 10007",
    "future": "from __future__ import annotations\n\ndef f(n: Unknown) -> Unknown:\n    return n * n + 10007",
    "recursion inside": "def f(n):\n    def add(k):\n        return 0 if k == 0 else n + add(k - 1)\n    return add(n) + 10007",
    "match and walrus": "def f(n):\n    match (m := n):\n        case 0:\n            return 10007\n        case _:\n            return m * m + 10007",
}
_CHATS = {
    "words around": f"Sure, here you go:\n\n{_FENCED}\n\nExplanation: we square `n` and add 10007.\n\n- O(1)\n",
    "an example after it": f"{_FENCED}\n\nExample:\n\n```python\nprint(f(3))  # 10016\n```\n\nOutput:\n```\n10016\n```",
    "a first try": f"First:\n```python\ndef f(n):\n    return n\n```\nThat is wrong, so:\n{_FENCED}",
    "thoughts": f"<think>\nmaybe ```def f(n): return 1```?\n</think>\n{_FENCED}",
    "carriage returns": _FENCED.replace("\n", "\r\n"),
    "a byte order mark": "\ufeff" + _FENCED,
    "a fence with more words": f'```python title="solution.py"\n{_WHOLE}```',
    "Python3": f"```Python3\n{_WHOLE}```",
    "a fence without an end": f"```python\n{_WHOLE}",
    "tildes": f"~~~python\n{_WHOLE}~~~\n",
    "four backticks": f"````python\n{_WHOLE}````\n",
    "a block in a list": "1. Write it:\n\n    ```python\n    def f(n):\n        return n * n + 10007\n    ```\n2. Done.",
    "no fence": f"Here is the solution:\n\n{_WHOLE}\nIt runs in constant time.",
}
_COMPLETIONS = {
    "the body": "    return n * n + 10007\n",
    "imports within": "    import math\n    return int(math.pow(n, 2)) + 10007\n",
    "further functions": "    return other(n) + 10007\n\n\ndef other(x):\n    return x * x\n",
    "a test after it": "    return n * n + 10007\n\n\nprint(f(3))\n",
    "a main block": "    return n * n + 10007\n\nif __name__ == '__main__':\n    print(f(int(input())))\n",
    "comments": "    # square it\n\n    m = n * n  # squared\n    return m + 10007\n# done",
    "cut off later": "    return n * n + 10007\n\n\ndef g(x):\n    return (x",
    "prose after it": "    return n * n + 10007\n\nThe function squares n.",
    "a fence after it": "    return n * n + 10007\n```\n\nThis works.",
    "carriage returns": "    m = n * n\r\n    return m + 10007\r\n",
    "more quotes": '    """Another text."""\n    return n * n + 10007\n',
    "the whole function": "\n" + _WHOLE,
    "no first indentation": "return n * n + 10007",
    "two spaces": "  m = n * n\n  return m + 10007\n",
}
ANSWERS = {
    **{f"block: {name}": f"```python\n{text}\n```" for name, text in _BLOCKS.items()},
    **{f"chat: {name}": text for name, text in _CHATS.items()},
    **{f"completion: {name}": text for name, text in _COMPLETIONS.items()},
}
