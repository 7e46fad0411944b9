"""Plain functions of one robot's numbers, made into code that the kernel inlines.

A term is written in plain Python. Compiled as it stands, its literals would be float64 and int64, and drag everything
that they touch with them: half as many numbers to a vector register, and other results. So literals and constants
become ``real`` here, and plain helper functions that it calls are compiled alike.
"""

import ast
import hashlib
import importlib.util
import inspect
import math
import pathlib
import re
import sys
import textwrap
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numba
import numpy as np
from numba import types as numba_types
from numba.core.errors import TypingError
from numba.extending import overload

from physics import spatial
from physics.jit import callable_from_python, inline, real
from settings import ConfigError

# What compiles to vector instructions; the same names in math and numpy call a library number by number
_FAST = {"exp": spatial.exp, "atan2": spatial.atan2}


@dataclass(frozen=True, eq=False)
class Function:
    """A plain function of fields, and what its signature and docstring say.

    parameters: the fields that it reads; options: parameters with a default, which a configuration sets.
    """

    plain: Callable
    parameters: tuple[str, ...]
    options: dict[str, Any]
    meaning: str
    of_option: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name."""
        return self.plain.__name__

    @property
    def unit(self) -> str:
        """The unit of what it returns, in brackets at the end of its docstring's first line; "" where none is told."""
        return self.meaning.rpartition("[")[2].removesuffix("]") if self.meaning.endswith("]") else ""

    @property
    def where(self) -> str:
        """The file and line that define it."""
        code = self.plain.__code__
        return f"{code.co_filename}:{code.co_firstlineno}"

    @cached_property
    def identity(self) -> bytes:
        """What compiled code that calls it depends on: its file and those of what it calls, and constants there."""
        found: dict[str, bytes] = {}
        _depends(self.plain, found)
        return b"".join(found.values())

    @cached_property
    def inline(self) -> Any:
        """What the kernel inlines."""
        return _compile(self.plain)

    @cached_property
    def _callable(self) -> Callable:
        return callable_from_python(self.inline)

    def __call__(self, *values: Any) -> Any:
        """Return what the compiled function gives for one robot's fields, in the order of its parameters.

        values: numbers and tuples of numbers.
        """
        given = (*values, *list(self.options.values())[len(values) - len(self.parameters) :])
        return self._callable(
            tuple(
                tuple(map(real, v)) if isinstance(v, (tuple, list)) or getattr(v, "ndim", 0) else real(v) for v in given
            )
        )


def _depends(function: types.FunctionType, found: dict[str, bytes]) -> None:
    """Add to ``found`` what a plain function and those that it calls are compiled from, by their places."""
    code = function.__code__
    place = f"{code.co_filename}:{code.co_firstlineno} {function.__qualname__}"
    if place in found:
        return
    found[place] = b""  # it may call itself
    around = inspect.getclosurevars(function)
    constants = {}
    for name, value in sorted((around.globals | around.nonlocals).items()):
        inside = {name: value}
        if isinstance(value, types.ModuleType):
            inside = {f"{name}.{x}": getattr(value, x) for x in sorted(code.co_names) if hasattr(value, x)}
        for known, x in inside.items():
            plain = x.plain if isinstance(x, Function) else getattr(x, "py_func", x)
            if isinstance(plain, types.FunctionType):
                _depends(plain, found)
            elif _is_constant(plain):
                constants[known] = plain
    path = pathlib.Path(inspect.getsourcefile(function) or "")
    source = _contents(path, path.stat().st_mtime_ns) if path.is_file() else code.co_code
    found[place] = f"{function.__qualname__} {code.co_firstlineno} {constants!r}".encode() + source


@cache
def _contents(path: pathlib.Path, changed: int) -> bytes:
    return path.read_bytes()


def _is_constant(x: Any) -> bool:
    return isinstance(x, (bool, int, float, str)) or (isinstance(x, tuple) and all(map(_is_constant, x)))


def compiled(function: Callable) -> Function:
    """Return a plain function as a Function.

    Raises ConfigError, naming function and file, for a signature that none can have.
    """
    if isinstance(function, Function):
        return function
    fields = []
    options = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"{describe(function)}: expected parameters that name fields, got {parameter}")
        if parameter.default is parameter.empty:
            fields.append(name)
        else:
            options[name] = parameter.default
    text = inspect.getdoc(function) or ""
    of_option = dict(re.findall(r"^(\w+): (.+)$", text, re.MULTILINE))
    return Function(
        function,
        tuple(fields),
        options,
        text.split("\n")[0].rstrip("."),
        {name: x for name, x in of_option.items() if name in options},
    )


def describe(function: Callable) -> str:
    """Return a function's name and where it is."""
    code = getattr(function, "__code__", None)
    return f"{function.__name__} ({code.co_filename}:{code.co_firstlineno})" if code else repr(function)


class _Reals(ast.NodeTransformer):
    """Numbers become real(...), but for indices, counts of a range and powers; math.exp and the like the fast ones."""

    def __init__(self, space: dict[str, Any]) -> None:
        self.space = space

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and self.space.get(node.value.id) in (math, np) and node.attr in _FAST:
            return ast.copy_location(ast.Name(f"_fast_{node.attr}", ast.Load()), node)
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            return ast.copy_location(ast.Call(ast.Name("real", ast.Load()), [node], []), node)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        node.value = self.visit(node.value)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in ("range", "len", "uniform"):
            if node.func.id == "uniform":  # key and number of the draw are whole numbers
                node.args[2:] = [self.visit(x) for x in node.args[2:]]
            return node
        node.func = self.visit(node.func)
        node.args = [self.visit(x) for x in node.args]
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        node.left = self.visit(node.left)
        if not (isinstance(node.op, ast.Pow) and isinstance(node.right, ast.Constant)):
            node.right = self.visit(node.right)
        return node


@cache
def _compile(function: Callable) -> Any:
    """Return an inlined, compiled function of the same source in which numbers are real."""
    try:
        lines, first = inspect.getsourcelines(function)
    except OSError:
        raise ConfigError(f"{describe(function)}: expected a function whose source is in a file") from None
    tree = ast.parse(textwrap.dedent("".join(lines)))
    (definition,) = tree.body
    if not isinstance(definition, ast.FunctionDef):
        raise ConfigError(f"{describe(function)}: expected a function that def defines")
    definition.decorator_list = []
    definition.args.defaults = []
    definition.args.kw_defaults = []
    definition.args.args += definition.args.kwonlyargs
    definition.args.kwonlyargs = []
    definition.returns = None
    for argument in definition.args.args:
        argument.annotation = None
    closure = inspect.getclosurevars(function)
    space = (
        function.__globals__
        | closure.nonlocals
        | {"real": real}
        | {f"_fast_{name}": made for name, made in _FAST.items()}
    )
    words = (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) for statement in definition.body
    )
    reals = _Reals(space)
    definition.body = [
        reals.visit(statement) for statement, is_word in zip(definition.body, words, strict=True) if not is_word
    ]
    ast.increment_lineno(ast.fix_missing_locations(tree), first - 1)
    for name in space.keys() & {
        *function.__code__.co_names,
        *function.__code__.co_freevars,
    }:  # not what a parameter or a variable shadows
        space[name] = _constant(space[name])
    exec(compile(tree, function.__code__.co_filename, "exec"), space)
    return inline(space[function.__name__])


def _constant(value: Any) -> Any:
    """Return what a name outside of a function stands for, as the compiled function takes it."""
    if isinstance(value, Function):
        return value.inline
    if isinstance(value, types.FunctionType):
        return _compile(value)
    if isinstance(value, float):
        return real(value)
    if isinstance(value, tuple) and value and all(isinstance(x, float) for x in value) and type(value) is tuple:
        return tuple(map(real, value))
    return value


def certain(x: Any) -> Any:
    """Return x, in compiled code: a term that returns nothing in some cases does not compile then."""
    return x


@overload(certain)
def _certain(x) -> Callable:  # noqa: ANN001 (its signature must be the function's own)
    if x == numba_types.none or isinstance(x, numba_types.Optional):
        raise TypingError("returns nothing in some cases")
    return lambda x: x


def reason(error: Exception) -> str:
    """Return one line of what Numba says."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    found = re.search(r"(No implementation of function \S+).*?>>> ([^\n]+)", text, re.DOTALL)
    if found:
        return f"cannot be compiled: nothing does {found[2].strip()}"
    lines = [line.strip() for line in text.split("\n") if line.strip() and not line.startswith("Failed in")]
    place = re.search(r'^File "[^"]*", line (\d+):', text, re.MULTILINE)
    where = f" (line {place[1]})" if place else ""
    return f"cannot be compiled: {lines[0] if lines else type(error).__name__}{where}"


def module(stage: str, text: str, imports: dict[str, Function]) -> Any:
    """Return the module of a stage, named by its text and by the files of the functions in it, by their names there."""
    called = [f"# {name}: {f.plain.__module__}.{f.plain.__qualname__}" for name, f in imports.items()]
    about = f'"""The stage {stage}, composed of terms; {__name__} puts in the functions that it calls."""'
    text = "\n".join([about, "", *called, text])
    sources = hashlib.sha256(text.encode())
    for function in imports.values():
        sources.update(function.identity)
    name = f"foal_{stage}_{sources.hexdigest()[:12]}"
    path = pathlib.Path(numba.config.CACHE_DIR) / "composed" / f"{name}.py"
    if name not in sys.modules:
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        spec = importlib.util.spec_from_file_location(name, path)
        made = importlib.util.module_from_spec(spec)
        vars(made).update({name: function.inline for name, function in imports.items()})
        spec.loader.exec_module(made)
        sys.modules[name] = made
    return sys.modules[name]
