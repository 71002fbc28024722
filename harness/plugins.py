"""Find plugins one by one, name the broken ones, look names up with suggestions.

Does: load the entry-point group `harness`; collect registrations (name -> lazy target); import a target on first use.
Doesn't: import domains, methods or engines for listing them.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, NamedTuple

import pluggy

from harness import hookspecs
from harness.errors import HarnessError, UnknownName

GROUP = "harness"
OWN = "oneshot-harness"  # loaded first: no other plugin can take a built-in name
KINDS = ("domain", "method", "engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One registered name. `target` is "package.module:Attribute"."""

    kind: str
    name: str
    target: str
    summary: str
    distribution: str
    version: str

    def load(self) -> Any:
        """Import the target. Raises HarnessError that names the plugin and the cause."""
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:  # the plugin border
            raise HarnessError(
                f'{self.kind} "{self.name}" of {self.distribution} {self.version} cannot be loaded: '
                f"{type(error).__name__}: {error}"
            ) from error


class Source(NamedTuple):
    """A loaded entry point and where it is from, whatever it does: one that only observes has no registered name."""

    name: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} of {self.distribution} {self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """An entry point or a hook that failed; it takes nothing else down."""

    name: str
    distribution: str
    version: str
    error: str


class Observed(NamedTuple):
    """What the plugins that implement a hook answered, and the errors of those that failed."""

    answers: list[Any]
    errors: list[str]


class Plugins:
    """Everything installed. Build it with `load()`."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("harness")
        self.manager.add_hookspecs(hookspecs)
        self.registered: dict[tuple[str, str], Registration] = {}
        self.broken: list[Broken] = []
        self.sources: list[Source] = []

    def add(self, plugin: object, *, name: str, distribution: str, version: str) -> None:
        """Register one plugin module or object and collect its names."""
        before = dict(self.registered)
        try:
            for kind in KINDS:
                hook = getattr(plugin, f"harness_register_{kind}s", None)
                if hook is not None:
                    hook(_Collector(self, kind=kind, distribution=distribution, version=version))
            self.manager.register(plugin, name=f"{distribution}:{name}")
            self.sources.append(Source(name, distribution, version))
            before = self.registered
        finally:
            self.registered = before  # all of a plugin or nothing

    def lookup(self, kind: str, name: str) -> Registration:
        """Raises UnknownName with what exists, what is near and what is installed but broken."""
        found = self.registered.get((kind, name))
        if found is None:
            ill = "; ".join(f"{b.distribution} {b.version} ({b.error})" for b in self.broken)
            hint = f"Installed but broken: {ill}. " if ill else ""
            raise UnknownName(kind, name, self.names(kind), hint=hint + "See: harness plugins")
        return found

    def names(self, kind: str) -> list[str]:
        return sorted(name for k, name in self.registered if k == kind)

    def observe(self, hook: str, **arguments: Any) -> Observed:
        """Call an observer hook plugin by plugin; errors are returned, since observers may not end a run."""
        answers, errors = [], []
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            own = {key: arguments[key] for key in implementation.argnames}
            try:
                answers.append(implementation.function(**own))
            except Exception as error:  # noqa: BLE001 - the observer border
                errors.append(f"{implementation.plugin_name}.{hook}: {type(error).__name__}: {error}")
        return Observed([answer for answer in answers if answer is not None], errors)


class _Collector:
    """The `register` callable that hooks receive."""

    def __init__(self, plugins: Plugins, *, kind: str, distribution: str, version: str) -> None:
        self.plugins, self.kind, self.distribution, self.version = plugins, kind, distribution, version

    def __call__(self, name: str, target: str, *, summary: str, api: int = hookspecs.API) -> None:
        if api != hookspecs.API:
            raise HarnessError(f'{self.kind} "{name}" wants api {api}; this harness has {hookspecs.API}')
        other = self.plugins.registered.get((self.kind, name))
        if other is not None:
            raise HarnessError(f'{self.kind} "{name}" is registered by {other.distribution} and {self.distribution}')
        self.plugins.registered[self.kind, name] = Registration(
            kind=self.kind,
            name=name,
            target=target,
            summary=summary,
            distribution=self.distribution,
            version=self.version,
        )


def load(environment: Mapping[str, str] | None = None) -> Plugins:
    """Load every entry point of the group. HARNESS_PLUGINS=math,code limits which ones (names, comma separated)."""
    allowed = (os.environ if environment is None else environment).get("HARNESS_PLUGINS")
    plugins = Plugins()
    names = None if allowed is None else {name.strip() for name in allowed.split(",")}
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda p: (_origin(p).name != OWN, p.name)):
        if names is None or point.name in names:
            _load_one(plugins, point)
    return plugins


class _Origin(NamedTuple):
    name: str
    version: str


def _origin(point: metadata.EntryPoint) -> _Origin:
    return _Origin(point.dist.name, point.dist.version) if point.dist else _Origin("unknown", "?")


def _load_one(plugins: Plugins, point: metadata.EntryPoint) -> None:
    name, version = _origin(point)
    try:
        plugins.add(point.load(), name=point.name, distribution=name, version=version)
    except Exception as error:  # noqa: BLE001 - the plugin border: one broken plugin takes nothing else down
        text = f"{type(error).__name__}: {error}"
        plugins.broken.append(Broken(name=point.name, distribution=name, version=version, error=text))
