"""The panel of a page that shows frames: what its users press becomes Requests, what frames say becomes text."""

import html
import queue
import time
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from renderer.charts import Bar, Charts
from renderer.controls import OVERLAYS, Requests, offered
from renderer.snapshot import Frame

# of the card of numbers, at the left [px]
MARGIN = 15
WIDTH = 270
TEXT_SECONDS = 0.1  # between changes of the text: faster, nobody can read it
AXES = "forward", "left", "turn left"
MOUSE = "click: choose a robot, or set a goal on the ground; shift and click: shove it away from you"
MOUSE_PASSIVE = "click: choose a robot"
ROW = "<tr><td style='opacity:.65'>{}</td><td style='text-align:right'>{}</td></tr>"
BAR = (
    "<tr><td style='opacity:.65'>{0}</td><td style='width:40%'><div style='height:.5em;width:{1:.0f}%;"
    "margin-left:{2:.0f}%;background:{3}'></div></td><td style='text-align:right'>{4}</td></tr>"
)
TABLE = "<table style='width:100%;font-size:.85em;line-height:1.35;font-variant-numeric:tabular-nums'>{}</table>"
GOOD = "#16A69A"
BAD = "#FF9F1C"
ALARM = "#D63A42"


class Panel:
    """Buttons, boxes, sliders and text, the same for all that look.

    gui: viser's
    shown: names of controls.OVERLAYS, at first
    driven: whether robots obey what is asked of them; else there is no ``shove``
    checkpoints: names to choose from; checkpoint: the one that is shown at first
    """

    def __init__(
        self,
        gui: Any,
        shown: Collection[str],
        driven: bool = True,
        checkpoints: Sequence[str] = (),
        checkpoint: str = "",
    ) -> None:
        self._asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._charts = Charts()
        self._written = -TEXT_SECONDS
        self._said = ""
        card = gui.add_panel()
        card.float(x=MARGIN, y=MARGIN, width=WIDTH)
        with card.add_tab("Numbers"):
            self._text = gui.add_html("")
        self._list = None
        if checkpoints:
            at_first = checkpoint if checkpoint in checkpoints else checkpoints[0]
            self._list = gui.add_dropdown("checkpoint", tuple(checkpoints), initial_value=at_first)
            self._list.on_update(lambda event: self.ask(checkpoint=event.target.value))
        with gui.add_folder("Do"):
            controls = [control for control in offered(driven) if not control.view]
            alone = [control for control in controls if not control.opposite]
            half = len(alone) // 2
            for some in filter(None, (alone[:half], alone[half:])):
                self._add_buttons(gui, [c.name for c in some], "\n".join(f"{c.name}: {c.says}" for c in some))
            for control in controls:
                if control.opposite:
                    self._add_buttons(
                        gui, [control.name, control.opposite], control.says.replace("shift: ", ""), control.says
                    )
            if driven:
                self.shove = gui.add_button("shove", hint="push the robot that is watched away from you")
        self._sliders = []
        if driven:
            with gui.add_folder("Drive"):
                self._sliders = [gui.add_slider(axis, -1.0, 1.0, 0.05, 0.0) for axis in AXES]
                gui.add_button("release").on_click(self._release)
        with gui.add_folder("Show"):
            self._follow = gui.add_checkbox("follow", True, hint="the camera goes where the robot goes")
            self._boxes = {
                name: gui.add_checkbox(name, name in shown, hint=what) for name, (_, what) in OVERLAYS.items()
            }
        mouse = MOUSE if driven else MOUSE_PASSIVE
        gui.add_html(f"<div style='opacity:.65;font-size:.8em;padding:0 1em 1em'>{mouse}</div>")

    def _add_buttons(self, gui: Any, names: list[str], hint: str, label: str = "") -> None:
        gui.add_button_group(label.partition(";")[0], names, hint=hint).on_click(
            lambda event: self._press(event.target.value)
        )

    def _press(self, name: str) -> None:
        """Ask for a control; where there is a list of checkpoints, the next one is the next of that."""
        if self._list is None or not name.startswith("checkpoint"):
            self.ask(controls=(name,))
            return
        names = self._list.options
        step = 1 if name == "checkpoint" else -1
        self._list.value = names[(names.index(self._list.value) + step) % len(names)]

    def _release(self, _: Any) -> None:
        for slider in self._sliders:
            slider.value = 0.0

    def ask(self, **asked: Any) -> None:
        """Add to the next requests, from any thread; asked: fields of Requests."""
        self._asked.put(asked)

    def take(self) -> Requests:
        """Return what was asked for since the last call."""
        asked: dict[str, Any] = {"controls": ()}
        while not self._asked.empty():
            more = self._asked.get()
            asked |= more | {"controls": asked["controls"] + more.get("controls", ())}
        drive = tuple(float(slider.value) for slider in self._sliders)
        return Requests(**asked, drive=drive if any(drive) else None)

    @property
    def follow(self) -> bool:
        """Whether the camera follows the robot that is watched."""
        return self._follow.value

    @property
    def shown(self) -> set[str]:
        """Names of controls.OVERLAYS that are shown."""
        return {name for name, box in self._boxes.items() if box.value}

    def write(self, frame: Frame) -> None:
        """Say what a frame says, unless it was said a moment ago or is no news."""
        now = time.perf_counter()
        if now < self._written + TEXT_SECONDS:
            return
        self._written = now
        text = self._describe(frame, self.shown)
        if text != self._said:
            self._said = self._text.content = text

    def _describe(self, frame: Frame, shown: Collection[str]) -> str:
        """Return the text of a frame as HTML."""
        parts = []
        if "numbers" in shown:
            fallen = np.ravel(frame.fallen)[frame.watched if np.ndim(frame.fallen) else 0]
            state = f"<span style='color:{ALARM}'>fallen</span>" if fallen else html.escape(frame.state)
            rows = "".join(ROW.format(*map(html.escape, row)) for row in frame.hud)
            parts.append(TABLE.format(rows + (ROW.format("", state) if state else "")))
        parts += [title + _bars(bars) for title, bars in self._charts.of(frame.detail, shown)]
        if frame.note:
            parts.append(f"<i>{html.escape(frame.note)}</i>")
        return f"<div style='padding:0 1em .5em'>{''.join(f'<div>{part}</div>' for part in parts)}</div>"


def _bars(bars: Sequence[Bar]) -> str:
    """Return a table of names, bars to either side of a middle and numbers."""
    rows = []
    for name, share, number, alarms in bars:
        long = 50.0 * min(abs(share), 1.0)
        colour = ALARM if alarms else GOOD if share > 0 else BAD
        rows.append(BAR.format(html.escape(name), max(long, 1.0), 50.0 - long if share < 0 else 50.0, colour, number))
    return TABLE.format("".join(rows))
