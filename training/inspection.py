"""What was read of a robot's file: a table, and a picture from all sides."""

import math
import pathlib
from collections.abc import Iterable

import numpy as np

from config import QuadrupedCfg
from environments.quadruped import gains
from physics.robot import LEGS, Robot

FRAMES = 120  # of the turn
FPS = 30


def describe(robot: Robot, cfg: QuadrupedCfg) -> str:
    """Return what there is to know of a robot, in lines for people; cfg: whose gains are told."""
    kp, kd = gains(cfg, robot)
    size = " x ".join(f"{2 * x:.3f}" for x in robot.trunk_half_extents)
    lines = [
        f"{robot.name}: {robot.total_mass:.2f} kg, base {robot.base.mass:.2f}, stands {robot.home_height:.3f} m high",
        f"trunk {size} m, hips {_span(robot.offset[:, 0, 0])} m apart along, {_span(robot.offset[:, 0, 1])} across",
        f"thigh {_length(robot.offset[:, 2])} m, calf {_length(robot.foot_offset)} m, "
        f"feet of radius {', '.join(f'{x:.3f}' for x in np.unique(robot.foot_radius.round(4)))} m",
        f"simulated in steps of {1e3 * cfg.sim_dt:.3g} ms, contacts of {cfg.physics.contact_stiffness:g} N/m and "
        f"{cfg.physics.contact_damping:g} N s/m",
        "",
    ]
    heading = "", "joint", "turns", "home", "lowest", "highest", "limit", "damping", "armature", "friction", "kp", "kd"
    units = "", "", "", "rad", "rad", "rad", "N m", "N m s/rad", "kg m^2", "N m", "N m/rad", "N m s/rad"
    rows = [heading, units]
    for i, leg in enumerate(LEGS):
        for j in range(3):
            numbers = robot.home_joints[i, j], *robot.joint_range[i, j], robot.torque_limit[i, j]
            more = robot.damping[i, j], robot.armature[i, j], robot.friction[i, j], kp[i, j], kd[i, j]
            way = "as here" if robot.joint_signs[i, j] > 0 else "other way"
            name = robot.joint_names[i][j]
            rows.append((leg if j == 0 else "", name, way, *(f"{x:.3g}" for x in (*numbers, *more))))
    widths = [max(len(row[k]) for row in rows) for k in range(len(heading))]
    for row in rows:
        cells = (cell.ljust(w) if k < 3 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    if robot.notes:
        lines += ["", *(f"- {note}" for note in robot.notes)]
    return "\n".join(lines)


def _span(places: np.ndarray) -> str:
    return f"{float(np.ptp(places)):.3f}"


def _length(vectors: np.ndarray) -> str:
    lengths = np.linalg.norm(vectors, axis=1)
    return ", ".join(f"{x:.3f}" for x in np.unique(lengths.round(3)))


def turntable(robot: Robot, path: pathlib.Path, width: int, height: int) -> None:
    """Record a robot in its home pose from all sides; raise RenderError where that cannot be."""
    from renderer import Film, Recorder, Snapshot, Window, offscreen_display

    frame = Snapshot(np.array([0.0, 0.0, robot.home_height]), np.array([1.0, 0, 0, 0]), robot.home_joints.ravel())
    with (
        offscreen_display(),
        Window(robot, width, height, robot.name, visible=False, fps=FPS) as window,
        Recorder(path, width, height, FPS) as video,
        Film(window, video) as film,
    ):
        for azimuth in _turn():
            window.camera.azimuth = azimuth
            window.draw(frame)
            film.take()


def _turn() -> Iterable[float]:
    return (2.0 * math.pi * k / FRAMES for k in range(FRAMES))
