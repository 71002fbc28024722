"""A fresh virtual environment that sees this one's packages: plugins are installed into it, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

_LINK = "import site; site.addsitedir({path!r})\n"  # unlike a bare path, it runs that folder's own .pth files
_HARNESS = """#!{python}
from harness.authoring import check, new
from harness.cli import main
if __name__ == "__main__":  # engine workers import this file
    main.add_command(check)
    main.add_command(new)
    main()
"""
_MODULE = """#!{python}
import runpy
runpy.run_module({module!r}, run_name="__main__")
"""


class FreshVenv:
    """`run` runs a shell command line there, as a user would with the environment activated."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=False)
        own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        Path(own, "parent.pth").write_text(_LINK.format(path=sysconfig.get_path("purelib")))
        python = folder / "bin" / "python"
        for name, text in {"harness": _HARNESS, "pip": _MODULE, "pytest": _MODULE}.items():
            script = folder / "bin" / name
            script.write_text(text.format(python=python, module=name))
            script.chmod(0o755)

    def run(
        self, command: str, *, cwd: Path, timeout: float = 120, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Nothing is asked for on a network: pip has no index, and the hub is off."""
        own = {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
            "OMP_NUM_THREADS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_CACHE_DIR": str(self.folder / "cache"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.run(
            command,
            shell=True,
            cwd=cwd,
            env={**os.environ, **own, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
