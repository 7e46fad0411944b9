"""What a configuration is made of: sections of knobs.

Knobs know their meaning, unit and range, and are read, checked and changed by name.
"""

import dataclasses
import difflib
import importlib
import math
import os
import pathlib
import sys
import traceback
from functools import cache
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

from host import available_memory

LARGEST = sys.float_info.max  # magnitude of a number, whole ones too
Pair = tuple[float, float]  # two numbers of a knob: lowest and highest, or first and last


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the field and what was expected."""


def knob(
    default: Any, meaning: str, unit: str = "", *, low: float = -math.inf, high: float = math.inf, choices: tuple = ()
) -> Any:
    """Return a dataclass field with its meaning, unit and allowed range (inclusive)."""
    return dataclasses.field(
        default=default, metadata={"meaning": meaning, "unit": unit, "low": low, "high": high, "choices": choices}
    )


class Section:
    """A part of a configuration: a frozen dataclass whose fields are knobs, or sections themselves."""

    def validate(self, name: str = "") -> None:
        """Raise ConfigError, naming the field, unless every value has its type and lies in its range.

        Sections extend this by what their fields must be to one another. name: of the section, "" for the whole.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            full = f"{name}.{field.name}" if name else field.name
            if isinstance(value, Section):
                value.validate(field.name)
            elif not fits(value, field):
                raise ConfigError(f"{full}: expected {expected(field)}, got {value!r:.80}")


def fits(value: Any, field: dataclasses.Field) -> bool:
    """Return whether a value has a field's type and lies in its range."""
    values = value if isinstance(value, tuple) else (value,)
    meta = field.metadata
    pair = get_origin(field.type) is tuple
    kinds = get_args(field.type) if pair else (field.type,)
    if len(values) != len(kinds) or isinstance(value, tuple) != pair:
        return False
    for v, kind in zip(values, kinds, strict=True):
        number = isinstance(v, (int, float)) and not isinstance(v, bool)
        if kind in (int, float):
            if not number or not (kind is float or isinstance(v, int)):
                return False
            if abs(v) > LARGEST or not (
                math.isfinite(v) and meta.get("low", -math.inf) <= v <= meta.get("high", math.inf)
            ):
                return False
        elif not isinstance(v, kind):
            return False
    if meta.get("choices") and value not in meta["choices"]:
        return False
    return not pair or value[0] <= value[1]


@cache
def with_knobs(section: type, more: tuple[tuple[str, Any, str, str], ...]) -> type:
    """Return a section with more fields: name, default, meaning and unit of each; a pair of numbers is a range."""
    kinds = {bool: bool, int: float, float: float, tuple: tuple[float, float]}
    new = []
    for name, default, meaning, unit in more:
        default = float(default) if isinstance(default, int) and not isinstance(default, bool) else default
        new.append((name, kinds[type(default)], knob(default, meaning, unit)))
    made = dataclasses.make_dataclass(section.__name__, new, bases=(section,), frozen=True)
    made.__doc__ = section.__doc__
    return made


def sections(cfg: Any, name: str = "") -> dict[str, Any]:
    """Return every section of a configuration by its name; nested sections too."""
    found = {name: cfg} if name else {}
    for field in fields(cfg):
        value = getattr(cfg, field.name)
        if isinstance(value, Section):
            found |= sections(value, field.name)
    return found


def fields(section: Any) -> tuple[dataclasses.Field, ...]:
    """Return the fields of a section, their types as such where its module postpones annotations."""
    found = dataclasses.fields(section)
    for field in found:
        if not field.metadata:  # a default changed in a subclass keeps what is said of it
            inherited = (
                cls.__dataclass_fields__[field.name]
                for cls in type(section).__mro__[1:]
                if field.name in getattr(cls, "__dataclass_fields__", ())
            )
            field.metadata = next((f.metadata for f in inherited if f.metadata), field.metadata)
        if isinstance(field.type, str):
            field.type = get_type_hints(type(section))[field.name]
    return found


def knobs(section: Any) -> list[dataclasses.Field]:
    """Return the fields of a section that are not sections themselves."""
    return [f for f in fields(section) if not isinstance(getattr(section, f.name), Section)]


def parse(field: dataclasses.Field, text: str, name: str) -> Any:
    """Return the value that a text stands for; raise ConfigError naming the field if it stands for none."""
    kind = field.type
    if kind is bool:
        if text.lower() in ("true", "yes", "on", "1", "false", "no", "off", "0"):
            return text.lower() in ("true", "yes", "on", "1")
        raise ConfigError(f"{name}: expected true or false, got {text!r}")
    try:
        if get_origin(kind) is tuple:
            parts = text.replace(",", " ").split()
            return tuple(make(part) for make, part in zip(get_args(kind), parts, strict=True))
        return kind(text)
    except ValueError:
        raise ConfigError(f"{name}: expected {expected(field)}, got {text!r:.80}") from None


def expected(field: dataclasses.Field) -> str:
    """Return what a field takes, in words."""
    meta = field.metadata
    kind = field.type
    if meta.get("choices"):
        return "one of " + ", ".join(meta["choices"])
    number = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(
        kind, "two numbers, low and high,"
    )
    low = meta.get("low", -math.inf)
    high = meta.get("high", math.inf)
    if kind in (str, bool) or (low == -math.inf and high == math.inf):
        return number.rstrip(",")
    return f"{number} between {low:g} and {high:g}"


def override(cfg: Any, changes: dict[str, Any], prefix: str = "") -> Any:
    """Return a configuration with some fields changed, and check it.

    changes: field or "section.field" to value; a section may also be given as a dict.

    Raises ConfigError, naming the field, for an unknown one or a value out of its range.
    """
    if not isinstance(changes, dict):
        raise ConfigError(f"{prefix or 'configuration'}: expected a dict of fields to change, got {changes!r}")
    changed = {}
    for key, value in changes.items():
        for k, v in value.items() if isinstance(value, dict) else {"": value}.items():
            name = f"{key}.{k}" if k else key
            changed[name] = v
    result = _replace(cfg, changed, prefix)
    own = {f.name for f in knobs(cfg)}
    inner = {name: {f.name for f in knobs(section)} for name, section in sections(cfg, prefix).items()}
    known = own | {f"{name}.{field}" for name, names in inner.items() for field in names}
    for key in changed:
        if key not in known:
            near = inner.get(key.split(".")[0], own | set(inner))
            raise ConfigError(f"{key}: unknown field; {suggest(key, known, 'known: ' + ', '.join(sorted(near)))}")
    result.validate(prefix)
    return result


def _replace(cfg: Any, changed: dict[str, Any], prefix: str) -> Any:
    new = {}
    for field in fields(cfg):
        value = getattr(cfg, field.name)
        if isinstance(value, Section):
            new[field.name] = _replace(value, {k: v for k, v in changed.items() if "." in k}, field.name)
        else:
            for key in (field.name, f"{prefix}.{field.name}"):
                if key in changed:
                    given = changed[key]
                    new[field.name] = _like(value, tuple(given) if isinstance(given, list) else given)
    return dataclasses.replace(cfg, **new)


def _like(known: Any, given: Any) -> Any:
    """Return what was given, whole numbers as floats where such are known, infinite ones if too large."""
    if isinstance(known, float) and type(given) is int:
        try:
            return float(given)
        except OverflowError:
            return math.inf if given > 0 else -math.inf
    if isinstance(known, tuple) and isinstance(given, tuple) and len(known) == len(given):
        return tuple(map(_like, known, given))
    return given


def suggest(name: str, known: Any, otherwise: str = "see --help") -> str:
    """Return a hint at the nearest known names."""
    near = difflib.get_close_matches(name, list(known), n=2, cutoff=0.65)
    return "did you mean " + " or ".join(near) + "?" if near else otherwise


def flat(values: dict[str, Any], section: str = "") -> dict[str, Any]:
    """Return nested settings as "section.field": value, the section being the nearest one."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, key)
        else:
            found[f"{section}.{key}" if section else key] = tuple(value) if isinstance(value, (list, tuple)) else value
    return found


def require_memory(needed: float, what: str) -> None:
    """Raise ConfigError, naming what it is for, where less than so many bytes are free."""
    free = available_memory()
    if needed > free:
        raise ConfigError(
            f"{what}: expected what fits into {free / 1e9:.0f} GB of free memory, got {needed / 1e9:.3g} GB"
        )


def imported(name: str, kind: str, what: str) -> tuple[ModuleType, str]:
    """Return the module of "module:name", one of the current folder or an installed one, and the name behind the colon.

    kind: what the name is of, such as task; what: where it was asked for, which an error begins with.

    Raises ConfigError, in a line, for whatever goes wrong.
    """
    module, _, short = name.rpartition(":")
    module = module.removesuffix(".py")
    here = os.getcwd()
    if not all(part.isidentifier() for part in module.split(".")):
        raise ConfigError(f"{what}: expected module:{kind}, the module named as in an import, got {name!r}")
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and module.split(".")[0] == error.name.split(".")[0]:
            expected = f"a module that can be imported from {here} or is installed"
            raise ConfigError(f"{what}: expected {expected}, got {module!r}") from None
        raise ConfigError(f"{what}: {module} cannot be imported: {error}") from None
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever a module of one's own may raise is told in a line, leaving Python too
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, SyntaxError) else f" ({last.filename}:{last.lineno})"
        raise ConfigError(f"{what}: {module} cannot be imported: {type(error).__name__}: {error}{where}") from None
    mine = pathlib.Path(here, *module.split(".")).with_suffix(".py")
    if mine.exists() and not os.path.samefile(getattr(found, "__file__", None) or os.devnull, mine):
        raise ConfigError(f"{what}: {mine.name}: expected another name, one that no module of Foal or Python has")
    return found, short
