"""Strict loader of ``params.yaml``: a section becomes a frozen dataclass, or a clear refusal.

A field without a default must stand in the file, an unknown key is an error that names the nearest
known one, no value is bent into another type (a whole number may stand for a ``float``), and none
lies beyond the bounds of its field (`governance.bounds`).
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from governance.bounds import Bound
from governance.errors import AuricleError, ConfigError
from governance.yaml_text import parse_yaml

T = TypeVar("T")

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "null",
}


def load(section: str, cls: type[T], *, path: Path = Path("params.yaml")) -> T:
    """The section ``section`` of the file as a ``cls``."""
    return load_text(_text(path), section, cls, item=str(path))


def load_all(kinds: Mapping[str, type], *, path: Path = Path("params.yaml")) -> dict[str, Any]:
    """Several sections of the file, each as the class that ``kinds`` gives it."""
    document = parse_yaml(_text(path), item=str(path))
    return {name: _section(document, name, kind, str(path)) for name, kind in kinds.items()}


def load_text(yaml_text: str, section: str, cls: type[T], *, item: str = "params.yaml") -> T:
    """The section ``section`` of a YAML text as a ``cls``; ``item`` names the text in errors."""
    return _section(parse_yaml(yaml_text, item=item), section, cls, item)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            "the parameter file is not there", item=str(path), mend="run in the workspace's root"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8 text", item=str(path), mend="save it as UTF-8") from None


def _section(document: Any, section: str, cls: type[T], item: str) -> T:
    if not isinstance(document, dict):
        raise ConfigError(
            "a mapping of sections is expected",
            item=item,
            mend=f"write '{section}:' on a line of its own, its keys indented below it",
        )
    if section not in document:
        raise ConfigError(
            f"the section '{section}' is missing",
            item=item,
            mend=_suggest(section, document) or f"add '{section}:' with its keys",
        )
    return typing.cast(T, _Reader(item).dataclass(document[section], cls, section))


def _suggest(name: str, known: typing.Iterable[Any]) -> str | None:
    near = difflib.get_close_matches(name, [str(entry) for entry in known], n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else None


class _Reader:
    """Turns parsed YAML into typed values; ``where`` is the dotted place in the file."""

    def __init__(self, item: str) -> None:
        self._item = item

    def dataclass(self, value: Any, cls: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise self._refuse(where, "a mapping of keys", value)
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        self._check_keys(value, fields, where)
        hints = typing.get_type_hints(cls, include_extras=True)
        arguments = {
            name: self.value(entry, hints[name], f"{where}.{name}") for name, entry in value.items()
        }
        try:
            return cls(**arguments)
        except AuricleError as error:
            if error.item is None:
                error.item = self._place(where)
            raise
        except ValueError as error:
            raise ConfigError(str(error), item=self._place(where)) from None

    def _check_keys(
        self, value: dict[Any, Any], fields: dict[str, "dataclasses.Field[Any]"], where: str
    ) -> None:
        for name in value:
            if name not in fields:
                raise ConfigError(
                    "unknown key",
                    item=self._place(f"{where}.{name}"),
                    mend=_suggest(str(name), fields)
                    or f"known keys are {', '.join(sorted(fields))}",
                )
        for name, field in fields.items():
            optional = (
                field.default is not dataclasses.MISSING
                or field.default_factory is not dataclasses.MISSING
            )
            if name not in value and not optional:
                raise ConfigError(
                    "missing key", item=self._place(f"{where}.{name}"), mend=f"add '{name}:'"
                )

    def value(self, value: Any, kind: Any, where: str) -> Any:
        """``value`` checked against the annotation ``kind``."""
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if kind is Any:
            return value
        if origin is Annotated:
            return self._bounded(value, arguments, where)
        if dataclasses.is_dataclass(kind):
            return self.dataclass(value, kind, where)
        if origin in (Union, types.UnionType):
            return self._union(value, arguments, where)
        if origin is Literal:
            if any(value == entry and type(value) is type(entry) for entry in arguments):
                return value
            raise self._refuse(where, "one of " + ", ".join(map(str, arguments)), value)
        if origin in (tuple, list):
            return self._sequence(value, origin, arguments, where)
        if origin is dict:
            return self._mapping(value, arguments, where)
        return self._scalar(value, kind, where)

    def _bounded(self, value: Any, kinds: tuple[Any, ...], where: str) -> Any:
        """The first of ``kinds`` is the type; its bounds follow."""
        typed = self.value(value, kinds[0], where)
        for bound in kinds[1:]:
            if isinstance(bound, Bound) and not bound.holds(typed):
                raise ConfigError(
                    f"must be {bound.words}, found {value!r}",
                    item=self._place(where),
                    mend=f"write {bound.words}",
                )
        return typed

    def _scalar(self, value: Any, kind: Any, where: str) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if kind is Path and isinstance(value, str):
            return Path(value)
        if kind not in _WORDS:
            raise TypeError(f"{where}: params cannot hold a {kind!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self._refuse(where, "a finite number", value)
        if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
            return value
        raise self._refuse(where, _WORDS[kind], value)

    def _union(self, value: Any, kinds: tuple[Any, ...], where: str) -> Any:
        if value is None and type(None) in kinds:
            return None
        kinds = tuple(kind for kind in kinds if kind is not type(None))
        if len(kinds) == 1:  # Optional: keep the precise error of the only other kind
            return self.value(value, kinds[0], where)
        for kind in sorted(kinds, key=lambda kind: type(value) is not kind):
            try:
                return self.value(value, kind, where)
            except ConfigError:
                continue
        raise self._refuse(where, " or ".join(_WORDS.get(k, str(k)) for k in kinds), value)

    def _sequence(self, value: Any, origin: Any, kinds: tuple[Any, ...], where: str) -> Any:
        if not isinstance(value, list):
            raise self._refuse(where, "a list", value)
        if origin is tuple and not (len(kinds) == 2 and kinds[1] is Ellipsis):
            if len(value) != len(kinds):
                raise self._refuse(where, f"a list of {len(kinds)}", value)
            pairs = list(zip(value, kinds, strict=True))
        else:
            pairs = [(entry, kinds[0]) for entry in value]
        entries = (self.value(e, kind, f"{where}[{i}]") for i, (e, kind) in enumerate(pairs))
        return origin(entries)

    def _mapping(self, value: Any, kinds: tuple[Any, ...], where: str) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise self._refuse(where, "a mapping", value)
        return {
            self.value(key, kinds[0], f"{where}.{key}"): self.value(
                entry, kinds[1], f"{where}.{key}"
            )
            for key, entry in value.items()
        }

    def _place(self, where: str) -> str:
        return f"{self._item}: {where}"

    def _refuse(self, where: str, expected: str, value: Any) -> ConfigError:
        found = "nothing" if value is None else f"{value!r}"
        return ConfigError(
            f"{expected} is expected, found {found}",
            item=self._place(where),
            mend=f"write {expected}",
        )
