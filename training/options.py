"""The command line: a few options, and every field of a configuration as --section.field."""

import argparse
import os
import re
import textwrap
from typing import Any, NoReturn

from config import Config
from environments import registry
from physics.jit import INSTALLED
from settings import ConfigError, expected, fits, knobs, override, parse, sections, suggest

ABOUT = "Train, evaluate and watch a creature."
PROGRAM = "foal" if INSTALLED else "simulate.py"
MOST_PORT = 65535


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def build_parser(cfg: Config | None = None) -> argparse.ArgumentParser:
    """Return the command line: a few options, and every field of a configuration as --section.field."""
    usage = f"{PROGRAM} [OPTION ...] [--SECTION.FIELD VALUE ...]"
    parser = _Parser(
        prog=PROGRAM,
        usage=usage,
        description=ABOUT,
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
    )
    # a number such as -1e-4 is a value, which argparse came to see in Python 3.14 alone
    parser._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
    add = parser.add_argument
    add(
        "-h",
        "--help",
        nargs="?",
        const="",
        metavar="SECTION",
        help="show this, the fields of a section, or with all everything",
    )
    add("--task", metavar="NAME", help="task to train or evaluate")
    add("--seed", metavar="N", help="seed of everything random")
    add("--iterations", metavar="N", help="rollouts with an update each")
    add("--eval", action="store_true", help="evaluate a checkpoint instead of training")
    add("--render", action="store_true", help="watch the training, or with --eval a checkpoint")
    add("--web", nargs="?", const="", metavar="[HOST:]PORT", help="the same in a browser; needs pip install viser")
    add("--record", metavar="FILE", help="with --eval: record .mp4, .gif or .webp, or stills as .png; needs no display")
    add(
        "--dream",
        action="store_true",
        help="with --eval: what the world model foresees, as a ghost beside the robot and as a plot",
    )
    add("--simulator", metavar="NAME", help="with --eval: what moves the robots: foal, or mujoco for legged ones")
    add("--model", metavar="FILE", help="with --simulator mujoco: the robot as a maker's file has it")
    add("--episodes", metavar="N", help="with --eval: episodes to evaluate (256) or to record (1)")
    add(
        "--checkpoint",
        metavar="PATH",
        help="file or folder of a run (the newest run of the task, else what comes with Foal); while training: a new "
        "file, for the best policy too",
    )
    add("--resume", action="store_true", help="go on with a run, from where it was saved last")
    add("--from", metavar="RUN", help="train as a run did: its folder, or a config.json; options given win")
    add("--seeds", nargs="+", metavar="N", help="train with each of several seeds, side by side where threads allow")
    add("--profile", action="store_true", help="after training, say where the time went")
    add("--export", metavar="PATH", help="write a checkpoint's policy: FILE.onnx, or a folder for a robot")
    add("--inspect", metavar="FILE", help="print what is read of a robot's file, and record it from all sides")
    add("--list", action="store_true", help="list tasks and robots")
    add("--json", action="store_true", help="with --eval: print one JSON object")
    for name, section in sections(cfg).items() if cfg else ():
        group = parser.add_argument_group(name, (type(section).__doc__ or "").partition("\n")[0])
        group._negative_number_matcher = parser._negative_number_matcher
        for field in knobs(section):
            value = getattr(section, field.name)
            pair = isinstance(value, tuple)
            unit = f" [{field.metadata['unit']}]" if field.metadata.get("unit", "") not in ("", "1") else ""
            shown = " ".join(map(str, value)) if pair else value
            text = f"{field.metadata.get('meaning', '')}{unit} ({shown})".strip().replace("%", "%%")
            group.add_argument(
                f"--{name}.{field.name}",
                nargs=2 if pair else None,
                metavar=("LOW", "HIGH") if pair else "VALUE",
                help=text,
            )
    return parser


def help_text(cfg: Config, section: str) -> str:
    """Return what --help shows: the options, the fields of a section, or all; raise ConfigError for another section."""
    if section == "all":
        return build_parser(cfg).format_help()
    groups = {
        group.title: group
        for group in build_parser(cfg)._action_groups
        if group.title in sections(cfg) and group._group_actions
    }
    if not section:
        names = textwrap.fill(" ".join(groups), 100, initial_indent="  ", subsequent_indent="  ")
        about = f"sections of {cfg.task}, whose fields are set as --SECTION.FIELD VALUE; --help SECTION explains them:"
        return f"{build_parser().format_help()}\n{about}\n{names}\n"
    if section not in groups:
        raise ConfigError(
            f"--help: unknown section {section!r}; {suggest(section, groups, 'known: ' + ', '.join(groups))}"
        )
    formatter = argparse.HelpFormatter(PROGRAM, max_help_position=40, width=120)
    formatter.start_section(f"{section}: {groups[section].description.rstrip('.')}")
    formatter.add_arguments(groups[section]._group_actions)
    formatter.end_section()
    return formatter.format_help()


def read_options(arguments: list[str]) -> dict[str, Any]:
    """Return the options alone, and what names a module to import."""
    parser = build_parser()
    parser.add_argument("--network.policy")
    return vars(parser.parse_known_args(arguments)[0])


def read_command_line(arguments: list[str], cfg: Config) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the options, and the texts of the fields of a configuration given as --section.field, by name.

    Raises ConfigError for anything unknown.
    """
    parser = build_parser(cfg)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        name = unknown[0].split("=")[0]
        if os.path.exists(name):
            raise ConfigError(f"{name}: expected options alone; a file or a run is named by --checkpoint {name}")
        options = [option for action in parser._actions for option in action.option_strings]
        raise ConfigError(f"{name}: unknown option; {suggest(name, options)}")
    values = vars(known)
    fields = {key: " ".join(value) if isinstance(value, list) else value for key, value in values.items() if "." in key}
    return {key: value for key, value in values.items() if "." not in key}, fields


def seeds_of(options: dict[str, Any]) -> list[int]:
    """Return the seeds of --seeds; raise ConfigError for what is none, or there twice."""
    field = next(f for f in knobs(Config()) if f.name == "seed")
    seeds = [parse(field, text, "--seeds") for text in options["seeds"]]
    if wrong := [seed for seed in seeds if not fits(seed, field)]:
        raise ConfigError(f"--seeds: expected {expected(field)}, got {wrong[0]}")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds: expected each seed once, got {' '.join(options['seeds'])}")
    return seeds


def whole_number(options: dict[str, Any], name: str) -> int | None:
    """Return an option as a whole number of at least 1, None if it is not given."""
    if name not in options:
        return None
    try:
        value = int(options[name])
    except ValueError:
        value = 0
    if value < 1:
        raise ConfigError(f"--{name}: expected a whole number of at least 1, got {options[name]!r}")
    return value


def web_address(text: str) -> tuple[str, int]:
    """Return host and port of --web's [HOST:]PORT; raise ConfigError for what is none."""
    from renderer.web import HOST, PORT

    if not text:
        return HOST, PORT
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")  # as addresses with colons of their own are written
    if not port.isdecimal() or int(port) > MOST_PORT or text.startswith(":") or (":" in host and not bracketed):
        raise ConfigError(
            f"--web: expected a port from 0, for any that is free, to {MOST_PORT}, HOST:PORT or [IPV6]:PORT, "
            f"got {text!r}"
        )
    return host.strip("[]") or HOST, int(port)


def configure(options: dict[str, Any], fields: dict[str, str], base: Config, fitted: bool = False) -> Config:
    """Return a configuration with the command line's settings.

    fitted: whether what they leave follows the model that they choose; see registry.changed().
    """
    by_name = {f"{name}.{field.name}": field for name, section in sections(base).items() for field in knobs(section)}
    changes: dict[str, Any] = {key: parse(by_name[key], text, key) for key, text in fields.items()}
    if "seed" in options:
        changes["seed"] = parse(next(f for f in knobs(Config()) if f.name == "seed"), options["seed"], "--seed")
    if (iterations := whole_number(options, "iterations")) is not None:
        changes["train.iterations"] = iterations
    return (registry.changed if fitted else override)(base, changes)
