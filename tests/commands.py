"""The commands that documents show, and how to run one at a tiny size in this process."""

import ast
import contextlib
import dataclasses
import importlib.util
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys
import types
import warnings

import benchmarks
import renderer
import simulate

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^ *(```+|~~~+) *(\w*)[^\n]*\n(.*?)^ *\1 *$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
RUNS_PYTHON = re.compile(r"(?:\$ +)?((?:python3?|torchrun)\s+\S.*)", re.DOTALL)


def blocks(text, language=None):
    """Return what stands in a document's blocks of code, of any language for None."""
    return [body for _, name, body in FENCE.findall(text) if language in (None, name)]


def snippets(text):
    """Return a document's lines of code, continued ones joined, and its inline code, white space as single spaces."""
    lines = [line for body in blocks(text) for line in body.replace("\\\n", " ").splitlines()]
    return [" ".join(code.split()) for code in (*lines, *(code for _, code in INLINE.findall(FENCE.sub("", text))))]


def documented(text):
    """Return the commands that a document shows, once each, in order, without comments, all that is optional taken."""
    found = (RUNS_PYTHON.fullmatch(code) for code in snippets(text))
    whole = (re.sub(r"[][]|\.\.\.", "", match[1]) for match in found if match)
    return list(dict.fromkeys(shlex.join(shlex.split(command, comments=True)) for command in whole))


def of_makefile(text):
    """Return the commands of a Makefile that run what is ours, as documented() does."""
    found = re.findall(r"^\t\$\(RUN\) ((?:simulate\.py|-m (?:benchmarks|examples)\.).*)$", text, re.MULTILINE)
    return [f"python {command}" for command in dict.fromkeys(found)]


def programs(folder):
    """Return the names of a package's modules that are to be run: those that define main()."""
    names = []
    for path in sorted((ROOT / folder).glob("*.py")):
        tree = ast.parse(path.read_text())
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            guard = ast.unparse(tree.body[-1])
            assert guard.startswith("if __name__ == '__main__':"), path.name
            assert "main(" in guard, path.name
            names.append(path.stem)
    return names


def assigned(node):
    """Return the names that a statement assigns to."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}


def imported_anew(monkeypatch, name, constants):
    """Return a module imported anew with other constants; what is made of them, defaults of arguments too, follows.

    constants: expressions by name, assigned where the module defines the constant, which they may name themselves.
    """
    spec = importlib.util.find_spec(name)
    tree = ast.parse(pathlib.Path(spec.origin).read_text())
    body = []
    missing = dict(constants)
    for node in tree.body:
        body.append(node)
        for constant in assigned(node) & set(missing):
            body += ast.parse(f"{constant} = {missing.pop(constant)}").body
    assert not missing, f"{name} has no constants {', '.join(missing)}"
    tree.body = body
    module = types.ModuleType(name)
    module.__file__ = spec.origin
    module.__spec__ = spec
    module.__package__ = spec.parent
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(benchmarks, name.rpartition(".")[2], module, raising=False)
    exec(compile(ast.fix_missing_locations(tree), spec.origin, "exec"), module.__dict__)
    return module


@dataclasses.dataclass(frozen=True)
class Done:
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


@contextlib.contextmanager
def inside(folder):
    """Be in a folder; contextlib.chdir() came with Python 3.11."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def called(main, arguments, monkeypatch):
    """Return what a main() leaves that reads sys.argv, or takes the arguments; raise what it raises but SystemExit."""
    out = io.StringIO()
    err = io.StringIO()
    with monkeypatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", [main.__module__, *arguments])
        patch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back what main() makes of it
        try:
            code = main(arguments) if main.__code__.co_argcount else main()
        except SystemExit as stop:
            code = stop.code
            if isinstance(code, str):
                print(code, file=sys.stderr)
                code = 1
    return Done(code or 0, out.getvalue(), err.getvalue())


def started_here(monkeypatch):
    """Return what stands for subprocess where simulate.py is started: its main(), called here to its end."""

    class Here:
        def __init__(self, words, stdout=None, **_):
            assert words[0] == sys.executable and words[1].endswith("simulate.py")
            done = called(simulate.main, words[2:], monkeypatch)
            self.returncode = done.code
            self.stdout = io.StringIO(done.out + done.err)

        def poll(self):
            return self.returncode

    return types.SimpleNamespace(**(vars(subprocess) | {"Popen": Here}))


# What a training or an evaluation becomes; of an option given twice the last counts. A checkpoint remembers where its
# training left its logs: here they are to be where we are.
ALWAYS = {"--env.max_episode_seconds": "0.5"}
TRAINING = {"--iterations": "2", "--train.num_envs": "64", "--train.eval_every": "1", "--train.eval_episodes": "4"}
WORLD_MODEL = {"--world_model.patience": "1", "--world_model.updates": "1", "--world_model.imagined": "64"}
SAC = {"--sac.patience": "1", "--sac.updates": "2", "--sac.batch": "4", "--train.num_envs": "16"}
PICTURES = {"--render.width": "128", "--render.height": "72"}
DREAM = {"--env.max_episode_seconds": "1.5"}  # longer than it foresees
INSTEAD = ("--help", "--list", "--export", "--inspect")  # of training
LOOKING = ("--eval", "--record", "--dream")


def looked_at_briefly(monkeypatch):
    """Let a page for browsers be closed after a few frames."""
    closes = iter([False] * 3 + [True])
    monkeypatch.setattr(renderer.Web, "should_close", property(lambda page: next(closes)))


def shrunk(arguments):
    """Return the arguments of simulate.py for the same at a tiny size; what would show a checkpoint records it."""
    arguments = list(arguments)
    more = {}
    if {"--eval", "--render"} <= set(arguments) and "--record" not in arguments:
        where = arguments.index("--render")
        arguments[where : where + 1] = ["--record", "window.gif"]
    if "--web" in arguments:  # on a port that is free
        at = arguments.index("--web") + 1
        if at < len(arguments) and not arguments[at].startswith("--"):
            del arguments[at]
        arguments.insert(at, "0")
    if any(option in arguments for option in LOOKING):
        more |= ALWAYS | {"--episodes": "1" if "--record" in arguments else "4"}
        more |= PICTURES if "--record" in arguments else {}
        more |= DREAM if "--dream" in arguments else {}
    elif not any(option in arguments for option in INSTEAD):
        if "--seeds" in arguments:  # one of them
            at = arguments.index("--seeds") + 2
            while at < len(arguments) and not arguments[at].startswith("--"):
                del arguments[at]
        more |= ALWAYS | TRAINING
        more |= WORLD_MODEL if "--world_model.role" in arguments else {}
        more |= SAC if "sac" in arguments else {}
    return [*arguments, *(word for pair in more.items() for word in pair)]


def in_this_process(module, monkeypatch):
    """Let a benchmark that starts processes of simulate.py or its own call their main() instead, trainings tiny."""

    def run(command, cwd=".", **_):
        python, *arguments = map(str, command)
        assert python == sys.executable
        with inside(cwd):
            if arguments[0].endswith("simulate.py"):
                done = called(simulate.main, shrunk(arguments[1:]), monkeypatch)
            else:
                assert arguments[:2] == ["-m", module.__name__]
                done = called(module.main, arguments[2:], monkeypatch)
        return subprocess.CompletedProcess(command, done.code, done.out, done.err)

    monkeypatch.setattr(module, "subprocess", types.SimpleNamespace(**(vars(subprocess) | {"run": run})))
