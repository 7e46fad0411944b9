"""docs/configuration.md, made from the schema.

python tests/configuration_reference.py      # writes it anew
"""

import math
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import Config  # noqa: E402
from environments import registry  # noqa: E402
from settings import knobs, sections  # noqa: E402

PATH = ROOT / "docs" / "configuration.md"
HEAD = """# Every setting

Written from the schema in `config.py` by `python tests/configuration_reference.py`. A field is an option of the command
line, `--SECTION.FIELD VALUE`; two numbers are lowest and highest, written `--push.speed 0.5 1.5`.
`python simulate.py --help SECTION` shows the same for a task of yours, whose terms may have fields of their own.

"""
OWN = "cartpole", "navigation", "bounce-ball"  # tasks that are no quadruped's


def text(value):
    """Return a value as the command line takes it."""
    if isinstance(value, tuple):
        return " ".join(map(text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def bounds(field):
    """Return which values a field takes."""
    meta = field.metadata
    low, high = (meta.get(name, default) for name, default in (("low", -math.inf), ("high", math.inf)))
    if meta.get("choices"):
        return ", ".join(f"`{choice}`" if choice else "none" for choice in meta["choices"])
    if (low, high) == (-math.inf, math.inf):
        return ""
    return f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"


def table(name, section):
    """Return a section's fields, one a row."""
    lines = [f"## {name}", "", (section.__doc__ or "").partition("\n")[0], ""]
    lines += ["| field | default | takes | |", "|---|---|---|---|"]
    for field in knobs(section):
        meta = field.metadata
        unit = f" [{meta['unit']}]" if meta.get("unit", "") not in ("", "1") else ""
        value = text(getattr(section, field.name))
        default = f"`{value}`" if value else ""
        lines.append(f"| `{name}.{field.name}` | {default} | {bounds(field)} | {meta.get('meaning', '')}{unit} |")
    return [*lines, ""]


def differences(task, base):
    """Return the settings that a task has otherwise than the default, as options."""
    plain = sections(base)
    found = []
    for name, section in sections(registry.default_rl_cfg(task)).items():
        for field in knobs(section):
            value = getattr(section, field.name)
            if name not in plain or value != getattr(plain[name], field.name, None):
                found.append(f"`--{name}.{field.name} {text(value)}`")
    return found


def reference():
    """Return the whole document."""
    base = registry.default_rl_cfg(Config().task)
    lines = []
    for name, section in sections(base).items():
        if knobs(section):
            lines += table(name, section)
    lines += ["## What tasks change", "", f"`{base.task}` is the default.", "", "| task | |", "|---|---|"]
    for task in registry.list_registered_envs():
        if task != base.task and task not in OWN:
            lines.append(f"| `{task}` | {', '.join(differences(task, base))} |")
    lines += [
        f"| `{task}` | {', '.join(x for x in differences(task, base) if not x.startswith('`--env.'))} |" for task in OWN
    ]
    lines.append("")
    for task in OWN:
        heading, *rest = table("env", registry.default_rl_cfg(task).env)
        lines += [f"{heading} of `{task}`", *rest]
    return HEAD + "\n".join(lines)


if __name__ == "__main__":
    PATH.write_text(reference())
