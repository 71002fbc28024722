"""Programs that try to be paid without solving, or to do harm, and honest ones written in unusual ways.

The task is always the same: f(n) is n squared plus 10007. A program is module text that defines f. These stand for what
the test (tests/hostile/test_hostile.py) has put up outside the sandbox:

  @OUTSIDE@  a folder that anybody may write to, holding `sentinel`     @SECRET@  a file with every right answer, as JSON
  @PORT@     a listening TCP port on 127.0.0.1, UDP on the same number  @CANARY@  a process of the same user
  @PARENT@   the process that judges
"""

from __future__ import annotations

from hostile.answers import ANSWERS
from hostile.escapes import ESCAPES
from hostile.floods import FLOODS
from hostile.forgeries import FORGERIES
from hostile.styles import STYLES
from hostile.tricks import TRICKS

PROGRAMS = {**ESCAPES, **FORGERIES, **FLOODS, **TRICKS}
__all__ = ["ANSWERS", "ESCAPES", "FLOODS", "FORGERIES", "PROGRAMS", "STYLES"]
