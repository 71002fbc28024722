"""Forged answers, lying objects, patched machinery, and hunts for the expected values."""

from __future__ import annotations

_EQUAL = "lambda *_: True"

# What follows `def f(n):`.
_BODIES = {
    "exit 0": "import sys; sys.exit(0)",
    "exit without cleaning up": "import os; os._exit(0)",
    "raise SystemExit": "raise SystemExit",
    "quit": "quit()",
    "abort": "import os; os.abort()",
    "kill itself": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "terminate itself": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "segmentation fault": "import ctypes; return ctypes.string_at(0)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "GeneratorExit": "raise GeneratorExit",
    "StopIteration": "raise StopIteration(n * n + 10007)",
    "AssertionError without text": "raise AssertionError",
    "exit in a thread": "import os, threading; threading.Thread(target=os._exit, args=(0,)).start()",
    "exit at the end": "import atexit, os; atexit.register(os._exit, 0); return 0",
    "exit in a finalizer": "class D:\n        def __del__(self):\n            import os; os._exit(0)\n    D(); return 0",
    "exit in a signal handler": "import os, signal\n    signal.signal(signal.SIGALRM, lambda *_: os._exit(0)); signal.setitimer(signal.ITIMER_REAL, .001)\n    import time; time.sleep(.1); return 0",
    "print passed": "print('passed', 'PASSED', 'OK', '1 passed in 0.01s', True, flush=True); return 0",
    "print to the real output": "import os; os.write(1, b'passed\\n'); os.write(2, b'passed\\n'); return 0",
    "print the answer": "import sys; sys.__stdout__.write(str(n * n + 10007)); return None",
    "an object equal to all": f"return type('E', (), {{'__eq__': {_EQUAL}, '__ne__': lambda *_: False, '__hash__': lambda _: 0}})()",
    "an integer equal to all": f"return type('E', (int,), {{'__eq__': {_EQUAL}, '__ne__': lambda *_: False, '__hash__': int.__hash__}})(1)",
    "a float equal to all": f"return type('E', (float,), {{'__eq__': {_EQUAL}, '__sub__': lambda *_: 0.0, '__hash__': float.__hash__}})(1)",
    "a text equal to all": f"return type('E', (str,), {{'__eq__': {_EQUAL}, '__hash__': str.__hash__}})('x')",
    "a list equal to all": f"return type('E', (list,), {{'__eq__': {_EQUAL}, '__len__': lambda _: 0, '__iter__': lambda _: iter(())}})([1])",
    "a tuple equal to all": f"return type('E', (tuple,), {{'__eq__': {_EQUAL}, '__hash__': tuple.__hash__}})((1,))",
    "a dictionary equal to all": f"return type('E', (dict,), {{'__eq__': {_EQUAL}, 'items': lambda _: []}})()",
    "mock.ANY": "from unittest.mock import ANY; return ANY",
    "a mock": "from unittest.mock import MagicMock; m = MagicMock(); m.__eq__ = lambda *_: True; return m",
    "an object that calls itself int": "class E:\n        __class__ = int\n        __index__ = __int__ = lambda self: n\n        __eq__ = lambda *_: True\n    return E()",
    "a metaclass that says yes": "class M(type):\n        __eq__ = __instancecheck__ = __subclasscheck__ = lambda *_: True\n        __hash__ = type.__hash__\n    class E(metaclass=M):\n        pass\n    return E",
    "a class that hides its bases": "class M(type):\n        def mro(cls): return (cls, object)\n    class E(metaclass=M):\n        __eq__ = lambda *_: True\n    return E()",
    "an exception class equal to all": "class M(type):\n        __eq__ = lambda *_: True\n        __hash__ = type.__hash__\n    class E(Exception, metaclass=M):\n        pass\n    raise E('passed')",
    "not a number": "return float('nan')",
    "infinity": "return float('inf')",
    "every right answer at once": "return {k * k + 10007 for k in range(100)}",
    "a generator of answers": "yield n * n + 10007",
    "a coroutine": "async def g(): return n * n + 10007\n    return g()",
    "a function": "return lambda: n * n + 10007",
    "None": "return None",
    "NotImplemented": "return NotImplemented",
    "Ellipsis": "return ...",
    "an iterator without end": "import itertools; return itertools.count()",
    "an object that answers as asked": "class E:\n        def __getattr__(self, name): return lambda *_: True\n        def __eq__(self, other): return True\n        def __bool__(self): return True\n    return E()",
}

# What stands in front of `def f(n): return 0`.
_MODULES = {
    "exit while loading": "import sys; sys.exit(0)",
    "exit 0 while loading": "import os; os._exit(0)",
    "an error while loading": "raise ValueError('passed')",
    "builtins say yes": "import builtins\nfor name in ('isinstance', 'all', 'any', 'bool', 'callable', 'hasattr', 'issubclass'):\n    setattr(builtins, name, lambda *_: True)",
    "no assertion errors": "import builtins\nbuiltins.AssertionError = type('Never', (Exception,), {'__new__': lambda *_: None})",
    "no exceptions": "import builtins\nbuiltins.Exception = builtins.BaseException = type('Never', (), {})",
    "another __import__": "import builtins\nreal = builtins.__import__\nbuiltins.__import__ = lambda *a, **k: real('math')",
    "another exec": "import builtins\nbuiltins.exec = builtins.compile = builtins.eval = lambda *a, **k: None",
    "a hook on imports": "import sys\nclass Hook:\n    def find_spec(self, *a): raise SystemExit(0)\nsys.meta_path.insert(0, Hook())\nsys.path_hooks.insert(0, Hook())\nsys.modules.clear()",
    "another json": 'import json\njson.loads = lambda *a, **k: True\njson.dumps = lambda *a, **k: \'{"calls": [], "raised": ""}\'',
    "another os.write": "import os\nos.write = lambda fd, data: len(data)",
    "another math": "import math, operator\nmath.isclose = operator.eq = lambda *a, **k: True",
    "another struct": "import struct\nstruct.Struct.pack = None",
    "int.__eq__ in the type's own dictionary": "import gc\nfor d in gc.get_referents(int.__dict__):\n    if isinstance(d, dict): d['__eq__'] = lambda *_: True",
    "a trace function": "import sys\ndef trace(frame, event, arg):\n    frame.f_locals['value'] = frame.f_locals['expected'] = 1\n    return trace\nsys.settrace(trace); sys.setprofile(trace)",
    "the machinery's own modules": "import sys\nfor name, module in list(sys.modules.items()):\n    if 'harness' in name or 'runner' in name or 'plain' in name:\n        for key in list(vars(module)):\n            if callable(vars(module)[key]): setattr(module, key, lambda *a, **k: True)",
    "the caller's functions": "import sys\nframe = sys._getframe()\nwhile frame:\n    for key, value in list(frame.f_globals.items()):\n        if key in ('encode', 'load', 'same', 'identical', 'decode'): frame.f_globals[key] = lambda *a, **k: ['l', 1]\n    frame = frame.f_back",
    "the caller's variables": "import ctypes, sys\nframe = sys._getframe()\nwhile frame:\n    frame.f_locals.update(raised='', calls=[[10016, '']])\n    ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), 1)\n    frame = frame.f_back",
    "its own test": "def check(candidate): pass\ndef assert_equal(*a): pass\ncandidate = f = None\nsys = type('S', (), {})",
    "the entry point is deleted": "f = 1\ndel f\nimport sys; sys.modules['solution'] = None; sys.modules.pop('solution')",
    "results from a table of the tests": "import sys\nfor module in list(sys.modules.values()):\n    for value in list(vars(module).values()):\n        if isinstance(value, dict) and 'expected' in value: raise SystemExit(value)",
}

_FRAME = """import os, struct, json
def frame(kind, message):
    body = json.dumps(message).encode()
    return struct.pack('=Ic', len(body), kind) + body
def everywhere(data):
    for fd in range(3, 64):
        try: os.write(fd, data)
        except OSError: pass
"""
_FORGED = {
    "a passed frame": "everywhere(frame(b'P', None))",
    "a loaded frame and a passed one": "everywhere(frame(b'R', None) + frame(b'P', None))",
    "an answer of guesses": "everywhere(frame(b'A', {'calls': [[1, '']] * 4, 'raised': ''}))",
    "answers in advance": "everywhere(frame(b'R', None) + frame(b'A', ['value', True]) * 50)",
    "objects in place of answers": "everywhere(frame(b'R', None) + frame(b'A', ['value', ['o', 0]]) * 50)",
    "a question in place of an answer": "everywhere(frame(b'Q', ['call', 'f', ['l']]) * 9)",
    "an exception in place of an answer": "everywhere(frame(b'R', None) + frame(b'A', ['raised', 'StopIteration']) * 50)",
    "a frame of four gigabytes": "everywhere(struct.pack('=Ic', 2**32 - 1, b'A') + b'x' * 1000)",
    "half a frame": "everywhere(frame(b'A', {'calls': []})[:7])",
    "a frame of nothing": "everywhere(struct.pack('=Ic', 0, b'A'))",
    "a pickle": "import pickle; everywhere(struct.pack('=Ic', 99, b'A') + pickle.dumps(frame)[:0] + b'cos\\nsystem\\n(S\"touch @OUTSIDE@/pickled\"\\ntR.' * 9)",
    "nesting without end": "everywhere(struct.pack('=Ic', 100000, b'A') + b'[' * 100000)",
    "numbers that collide": "everywhere(frame(b'A', {'calls': [[['S', *[k * (2**61 - 1) for k in range(1, 60000)]], '']], 'raised': ''}))",
    "a number of a million digits": "everywhere(struct.pack('=Ic', 1000002, b'A') + b'[' + b'9' * 1000000 + b']')",
    "text that is no text": "everywhere(struct.pack('=Ic', 4, b'A') + b'\\xff\\xfe\\x00\\x80')",
    "closed pipes": "os.closerange(0, 64)",
    "pipes tied together": "[os.dup2(3, fd) for fd in range(3, 20)]",
    "the machinery's own line": "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Line':\n        o.send(b'R'); o.send(b'P'); o.send(b'A', {'calls': [[1, '']] * 9, 'raised': ''})",
}

_SEEK = """import gc, inspect, sys
def search(value, depth=0):
    if depth < 4 and isinstance(value, dict):
        for key, inner in list(value.items()):
            if key in ('expected', 'answer', 'tests', 'check', 'test', 'reference'): found.append(inner)
            search(inner, depth + 1)
    elif depth < 4 and isinstance(value, (list, tuple)):
        for inner in value[:50]: search(inner, depth + 1)
found = []
def use(n):
    for each in found:
        if isinstance(each, list) and len(each) == 4 and n in (3, 10, 0, 7): return each[(3, 10, 0, 7).index(n)]
        if isinstance(each, dict) and n in each: return each[n]
        if isinstance(each, str) and '10016' in each: return n * n + 10007
    return 0
"""
_SEARCHES = {
    "frames": "frame = sys._getframe()\n    while frame: search(dict(frame.f_locals)); search(dict(frame.f_globals)); frame = frame.f_back",
    "inspect.stack": "for each in inspect.stack(): search(dict(each.frame.f_locals))",
    "frames of a traceback": "try: 1 / 0\n    except Exception as error:\n        trace = error.__traceback__\n        while trace: search(dict(trace.tb_frame.f_globals)); trace = trace.tb_next",
    "all threads": "for frame in sys._current_frames().values(): search(dict(frame.f_locals))",
    "all objects": "for each in gc.get_objects():\n        if type(each) in (dict, list, tuple): search(each)",
    "referrers": "for each in gc.get_referrers(n, f): search(each)",
    "modules": "for module in list(sys.modules.values()): search(dict(vars(module)))",
    "its own memory": "import re\n    try: maps = open('/proc/self/maps').readlines()\n    except OSError: maps = []\n    with open('/proc/self/mem', 'rb', 0) as memory:\n        for line in maps:\n            if ' rw' in line:\n                a, b = (int(x, 16) for x in line.split()[0].split('-'))\n                try: memory.seek(a); data = memory.read(b - a)\n                except (OSError, ValueError, OverflowError): continue\n                if re.search(rb'100[1]6', data) and re.search(rb'101[0]7', data): return n * n + 10007",
    "arguments and environment": "import os\n    if '10016' in str(sys.argv) + str(sys.orig_argv) + str(os.environ): return n * n + 10007",
}

FORGERIES = {
    **{f"return: {name}": f"def f(n):\n    {body}\n" for name, body in _BODIES.items()},
    **{f"module: {name}": f"{text}\ndef f(n):\n    return 0\n" for name, text in _MODULES.items()},
    **{
        f"forged while {when}: {name}": _FRAME + program
        for name, text in _FORGED.items()
        for when, program in (
            ("loading", f"{text}\ndef f(n):\n    return 0\n"),
            ("called", "def f(n):\n    " + text.replace("\n", "\n    ") + "\n    return 0\n"),
        )
    },
    **{f"search: {name}": f"{_SEEK}def f(n):\n    {text}\n    return use(n)\n" for name, text in _SEARCHES.items()},
}
