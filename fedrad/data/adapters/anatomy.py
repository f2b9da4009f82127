"""How the phantom's films are drawn: soft shapes added up, in units of half the film's width.

Axis letters: n films, p patients, k findings, h, w. u points to the film's right, v down.
"""

from collections.abc import Iterator

import numpy as np

__all__ = ["films"]

_CHUNK = 64

Anatomy = dict[str, np.ndarray]
"""Name -> float32 [p, 1, 1] (a lesion's: [p, k])."""


def films(
    findings: np.ndarray,
    of: np.ndarray,
    *,
    size: tuple[int, int],
    gamma: float,
    noise: float,
    field_of_view: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return films of patients.

    Args:
        findings: bool [p, k], what each patient has.
        of: int [n], the patient of each film.
        size: h, w.
        gamma: of the grey levels.
        noise: standard deviation in each pixel, in units of the full range.
        field_of_view: width of the film in units of the usual.
        rng: of all draws.

    Returns:
        uint8 [n, h, w].
    """
    anatomy = _anatomy(findings.shape[0], findings.shape[1], rng)
    pose = _pose(len(of), rng)
    drawn = np.empty((len(of), *size), np.uint8)
    for rows in _chunks(len(of)):
        body = {name: value[of[rows]] for name, value in anatomy.items()}
        u, v = _grid(size, field_of_view, {name: value[rows] for name, value in pose.items()})
        film = _thorax(u, v, body) + _lesions(u, v, body, findings[of[rows]])
        film += 0.03 * _texture(len(film), size, rng)
        film = np.clip(film * pose["exposure"][rows], 0, 1) ** gamma
        film += noise * rng.standard_normal(film.shape, dtype=np.float32)
        drawn[rows] = (np.clip(film, 0, 1) * 255).round().astype(np.uint8)
    return drawn


def _chunks(n: int) -> Iterator[slice]:
    for start in range(0, n, _CHUNK):
        yield slice(start, min(start + _CHUNK, n))


def _anatomy(patients: int, findings: int, rng: np.random.Generator) -> Anatomy:
    def around(mean: float, sd: float) -> np.ndarray:
        drawn: np.ndarray = rng.normal(mean, sd, (patients, 1, 1)).astype(np.float32)
        return drawn

    return {
        "width": around(1.0, 0.05),
        "height": around(1.0, 0.05),
        "heart": around(1.0, 0.10),
        "spine": around(0.0, 0.012),
        "diaphragm": around(0.0, 0.04),
        "rib": around(0.0, 0.5),
        "lucency": around(0.40, 0.04),
        "side": np.where(rng.random((patients, findings)) < 0.5, -1.0, 1.0),
        "radius": np.sqrt(rng.random((patients, findings))),
        "angle": rng.uniform(0, 2 * np.pi, (patients, findings)),
        "strength": rng.uniform(0.7, 1.3, (patients, findings)),
        "extent": rng.uniform(0.8, 1.25, (patients, findings)),
    }


def _pose(n: int, rng: np.random.Generator) -> Anatomy:
    """Draw how each film was taken: shift, tilt (radians), exposure."""

    def around(mean: float, sd: float) -> np.ndarray:
        drawn: np.ndarray = rng.normal(mean, sd, (n, 1, 1)).astype(np.float32)
        return drawn

    return {
        "right": around(0.0, 0.05),
        "down": around(0.0, 0.05),
        "tilt": around(0.0, 0.05),
        "exposure": around(1.0, 0.05),
    }


def _grid(size: tuple[int, int], field: float, pose: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Return u and v of every pixel's centre, float32 [n, h, w]."""
    height, width = size
    down = ((np.arange(height) + 0.5) / height * 2 - 1).astype(np.float32)[None, :, None]
    right = ((np.arange(width) + 0.5) / width * 2 - 1).astype(np.float32)[None, None, :]
    down, right = down * field - pose["down"], right * field - pose["right"]
    cos, sin = np.cos(pose["tilt"]), np.sin(pose["tilt"])
    return right * cos + down * sin, down * cos - right * sin


def _soft(r: np.ndarray, edge: float) -> np.ndarray:
    """Return 1 inside r < 1 and 0 outside, over an edge of that width."""
    inside = np.clip((1 - r) / edge + 0.5, 0, 1)
    smooth: np.ndarray = inside * inside * (3 - 2 * inside)
    return smooth


def _oval(u: np.ndarray, v: np.ndarray, a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
    """Return the distance from the centre in units of the half axes a (across) and b (down)."""
    distance: np.ndarray = np.sqrt((u / a) ** 2 + (v / b) ** 2)
    return distance


def _thorax(u: np.ndarray, v: np.ndarray, body: Anatomy) -> np.ndarray:
    """Return the film without lesions: brighter where more is in the beam."""
    u, v = u / body["width"], v / body["height"]
    # Shoulders slope from the neck; the trunk goes on below the film.
    trunk = _soft(np.abs(u) / (0.93 - 0.06 * v), 0.06) * _soft(0.16 - v + 0.42 * u**2, 0.10)
    neck = _soft(_oval(u, v + 1.0, 0.26, 0.5), 0.15)
    flesh = np.maximum(trunk, neck)
    lung = _lungs(u, v, body)
    # Ribs: arcs that fall away from the spine; between them the intercostal spaces.
    arc = np.cos(2 * np.pi * (v * 3.4 - 1.1 * u**2 + body["rib"] * 0.2))
    ribs = np.clip(arc - 0.35, 0, 1) * _soft(_oval(u, v, 0.80, 0.95), 0.12)
    clavicle = np.exp(-(((v + 0.66 + 0.22 * np.abs(u)) / 0.035) ** 2)) * (np.abs(u) > 0.10)
    spine = np.exp(-(((u - body["spine"]) / 0.10) ** 2))
    # The apex points down and to the film's right.
    long, short = 0.88 * (u - 0.12) + 0.47 * (v - 0.26), 0.88 * (v - 0.26) - 0.47 * (u - 0.12)
    heart = _soft(_oval(long, short, 0.34 * body["heart"], 0.25), 0.45)
    vessels = np.exp(-(((np.abs(u) - 0.20) / 0.10) ** 2) - ((v - 0.02) / 0.18) ** 2)
    film: np.ndarray = flesh * (
        0.54
        - body["lucency"] * lung * (1 - 0.9 * heart)
        + 0.11 * ribs
        + 0.09 * clavicle * _soft(_oval(u, v, 0.75, 1.0), 0.2)
        + 0.20 * spine
        + 0.09 * vessels
        + 0.07 * heart
    )
    return film + 0.03


def _lungs(u: np.ndarray, v: np.ndarray, body: Anatomy) -> np.ndarray:
    """Return the two lungs above the domes of the diaphragm, 0 to 1, float [n, h, w]."""
    across = np.abs(u)
    field = _soft(_oval(across - 0.42, v + 0.02, 0.31, 0.74), 0.18)
    # The liver lifts the dome on the film's left.
    level = 0.50 + body["diaphragm"] - 0.05 * (u < 0)
    dome = level + 0.9 * (across - 0.38) ** 2
    above = np.clip((dome - v) / 0.06 + 0.5, 0, 1)
    both: np.ndarray = field * above
    return both


# For each finding: half width, brightness, and where in the lung (v of the centre, spread down).
_KINDS = ((0.24, 0.46, -0.08, 0.42), (0.36, 0.32, -0.12, 0.30), (0.22, 0.42, 0.42, 0.05))


def _lesions(u: np.ndarray, v: np.ndarray, body: Anatomy, findings: np.ndarray) -> np.ndarray:
    """Return the brightness that the findings add, float [n, h, w]."""
    u, v = u / body["width"], v / body["height"]
    added = np.zeros(u.shape, np.float32)
    for k, (width, bright, centre, spread) in enumerate(_KINDS[: findings.shape[1]]):
        has = np.flatnonzero(findings[:, k])
        side, radius, angle, strength, extent = (
            body[name][has, k].astype(np.float32)[:, None, None]
            for name in ("side", "radius", "angle", "strength", "extent")
        )
        right = side * (0.42 + 0.17 * radius * np.cos(angle))
        down = centre + spread * radius * np.sin(angle)
        r = _oval(u[has] - right, v[has] - down, width * extent, width * extent)
        added[has] += bright * strength * np.exp(-(r**2))
    return added


def _texture(n: int, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return soft random shading of standard deviation near 1, float32 [n, h, w]."""
    coarse = rng.standard_normal((n, 9, 9), dtype=np.float32)
    rows, columns = _ramps(size[0], 9), _ramps(size[1], 9)
    shading: np.ndarray = rows @ coarse @ columns.T
    return shading


def _ramps(fine: int, coarse: int) -> np.ndarray:
    """Return the weights [fine, coarse] of linear interpolation."""
    at = np.linspace(0, coarse - 1, fine, dtype=np.float32)
    apart = np.abs(at[:, None] - np.arange(coarse, dtype=np.float32))
    weights: np.ndarray = np.clip(1 - apart, 0, 1)
    return weights
