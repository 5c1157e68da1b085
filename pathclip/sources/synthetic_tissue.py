"""Drawn tissue: where haematoxylin and eosin lie in nine kinds of tissue, without any colour yet.

Each function draws on a canvas's two density maps, where (0, 0) is empty glass. Lengths are in 1/160 of the
tile's side, so that the same field of view is drawn at any size. The forms follow what a textbook of
histology says of each tissue; no picture was used.
"""

from __future__ import annotations

import numpy as np

from pathclip.sources.synthetic_canvas import Canvas, ramp, slope, turned


def adenocarcinoma(c: Canvas) -> None:
    """Crowded, irregular, partly fused glands with stratified large vesicular nuclei in fibrous stroma."""
    z, rng = c.zoom, c.rng
    c.stroma(np.ones_like(c.h), 0.5)
    near, _ = c.nearest(c.lattice(54 * z, 0.2), warp=8.0, length=30)
    rho = near / (22.5 * z + 2.5 * c.noise(40))
    gland = ramp(rho, 1.05, 0.98)
    lumen = ramp(rho + 0.05 * c.noise(16), 0.46, 0.40)
    c.e = c.e * (1 - gland) + gland * (0.40 + 0.05 * c.noise(5))
    c.h = c.h * (1 - gland) + gland * 0.30
    points = c.lattice(5.6 * z, 0.16)
    level = c.at(rho, points)
    points = points[
        (level > 0.5) & (level < 0.97) & (c.at(lumen, points) < 0.4) & (rng.random(len(points)) < 0.93)
    ]
    c.nuclei(points, 4.6 * z, 2.3 * z, slope(c, rho, points), 0.95, 0.5, 0.18)
    c.e *= 1 - lumen
    c.h *= 1 - lumen
    c.e += lumen * 0.4 * ramp(c.noise(7), 1.2, 1.8)


def benign_glands(c: Canvas) -> None:
    """Evenly spaced round crypts: one row of small basal nuclei, goblet cells, a small lumen."""
    z, rng = c.zoom, c.rng
    c.stroma(np.ones_like(c.h), 0.15)
    spacing = 47 * z
    centres = c.lattice(spacing, 0.05)
    plasma = c.lattice(8.5, 0.3)
    near, _ = c.nearest(centres, warp=1.6, length=30)
    radius = 0.435 * spacing
    rho = near / radius
    plasma = plasma[(c.at(rho, plasma) > 1.1) & (rng.random(len(plasma)) < 0.6)]
    c.nuclei(plasma, 2.2, 2.0, None, 1.0)
    gland = ramp(rho, 1.03, 0.97)
    c.e = c.e * (1 - gland) + gland * 0.42
    c.h = c.h * (1 - gland) + gland * 0.12
    count = int(2 * np.pi * radius * 0.86 / (4.7 * z))
    theta = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.normal(0, 0.05, (len(centres), count))
    ring = np.stack([np.cos(theta), np.sin(theta)], -1)
    inner = count // 2
    goblets = (centres[:, None] + 0.62 * radius * ring[:, : 2 * inner : 2]).reshape(-1, 2)
    mucin = np.zeros_like(c.h)
    swap, c.h = c.h, mucin
    turn = np.broadcast_to(theta[:, : 2 * inner : 2], (len(centres), inner)).reshape(-1)
    c.nuclei(goblets.astype(np.float32), 4.6 * z, 2.7 * z, turn, 1.0, 0.0, 0.1)
    mucin, c.h = np.clip(c.h, 0, 1), swap
    c.e *= 1 - 0.85 * mucin
    c.h = c.h * (1 - mucin) + 0.10 * mucin
    basal = (centres[:, None] + 0.87 * radius * ring).reshape(-1, 2).astype(np.float32)
    c.nuclei(basal, 2.5 * z, 1.9 * z, theta.reshape(-1) + np.pi / 2, 1.0, 0.1, 0.08)
    lumen = ramp(rho + 0.05 * c.noise(12), 0.27, 0.2)
    c.e *= 1 - lumen
    c.h *= 1 - lumen


def squamous_carcinoma(c: Canvas) -> None:
    """Nests of polygonal cells with intercellular borders, whorled keratin pearls, clefts against stroma."""
    z = c.zoom
    c.stroma(np.ones_like(c.h), 0.6)
    field = c.noise(48)
    pearls = c.lattice(64 * z, 0.22)
    near, _ = c.nearest(pearls, warp=3.5, length=22)
    nest_field = np.maximum(field + 0.35, 1.9 - near / (16 * z))
    nest = ramp(nest_field, 0.0, 0.08)
    cleft = nest_field * 9
    c.e *= 1 - 0.95 * np.exp(-((cleft + 1.2) ** 2) / 1.4)
    cells = c.lattice(11.5 * z, 0.2)
    f1, f2 = c.nearest(cells)
    border = np.exp(-(((f2 - f1) / 1.2) ** 2))
    c.e = c.e * (1 - nest) + nest * (0.5 - 0.2 * border)
    c.h = c.h * (1 - nest) + nest * 0.15
    radius = 16.5 * z + 2.5 * c.noise(60)
    rho = near / radius
    inside = (c.at(nest_field, cells) > 0.12) & (c.at(rho, cells) > 1.22)
    c.nuclei(cells[inside], 3.7 * z, 3.0 * z, None, 0.95, 0.7, 0.2)
    pearl = ramp(rho, 1.05, 0.95)
    whorl = 0.5 + 0.5 * np.sin(near * 2.0 / z + 1.2 * c.noise(14))
    c.e = c.e * (1 - pearl) + pearl * (0.55 + 0.6 * whorl - 0.25 * ramp(whorl, 0.15, 0.0))
    c.h = c.h * (1 - pearl) + pearl * 0.06
    rim = c.lattice(7.0 * z, 0.3)
    level = c.at(rho, rim)
    rim = rim[(level > 0.75) & (level < 1.2)]
    c.nuclei(rim, 4.6 * z, 1.2 * z, slope(c, rho, rim) + np.pi / 2, 0.95, 0.0, 0.2)


def mucinous_carcinoma(c: Canvas) -> None:
    """Lakes of wispy pale mucin between thin septa, in which clusters of tumour cells float."""
    z, rng = c.zoom, c.rng
    f1, f2 = c.nearest(c.lattice(82 * z, 0.2), warp=7, length=34)
    septum = ramp(f2 - f1, 9.0, 6.0)
    c.stroma(np.ones_like(c.h), 0.6)
    lake = 1 - septum
    wisps = np.exp(-((c.noise(17) / 0.12) ** 2)) + 0.7 * np.exp(-((c.noise(9, 2.0) / 0.13) ** 2))
    c.e = c.e * septum + lake * (0.05 + 0.05 * wisps)
    c.h = c.h * septum + lake * (0.05 + 0.17 * wisps * ramp(c.noise(30), -0.6, 0.8))
    clusters = c.lattice(41 * z, 0.24)
    clusters = clusters[(c.at(f2 - f1, clusters) > 14) & (rng.random(len(clusters)) < 0.9)]
    if len(clusters) < 2:
        clusters = rng.uniform(40, 120, (2, 2)).astype(np.float32)
    near, _ = c.nearest(clusters, warp=3.5, length=14)
    rho = near / (12.5 * z + 1.5 * c.noise(30))
    cluster = ramp(rho, 1.05, 0.97)
    c.e = c.e * (1 - cluster) + cluster * 0.45
    c.h = c.h * (1 - cluster) + cluster * 0.2
    points = c.lattice(6.8 * z, 0.2)
    points = points[c.at(rho, points) < 0.9]
    c.nuclei(points, 3.6 * z, 3.0 * z, None, 0.95, 0.5, 0.18)


def adipose(c: Canvas) -> None:
    """Large empty polygonal fat cells with thin walls and flattened nuclei, crossed by a fibrous septum."""
    z, rng = c.zoom, c.rng
    cells = c.lattice(33 * z, 0.14)
    f1, f2 = c.nearest(cells, warp=2.0, length=20)
    gap = f2 - f1
    wall = np.exp(-((gap / 2.0) ** 2))
    c.e += 0.75 * wall
    c.h += 0.05 * wall
    spots = c.lattice(9, 0.35)
    spots = spots[(c.at(gap, spots) < 2.5) & (rng.random(len(spots)) < 0.8)]
    c.nuclei(spots, 3.4, 1.4, slope(c, gap, spots) + np.pi / 2, 1.0)
    for _ in range(int(rng.integers(1, 3))):
        turn = rng.uniform(0, np.pi)
        _, v = turned(c.x - 80, c.y - 80, turn)
        band = np.abs(v + rng.uniform(-40, 40) + 5 * c.noise(45)) - rng.uniform(7, 14)
        septum = ramp(band, 1.0, -1.0)
        c.stroma(septum, 1.0, turn)
        small = c.lattice(7.5, 0.3)
        small = small[(c.at(septum, small) > 0.8) & (rng.random(len(small)) < 0.5)]
        c.nuclei(small, 2.3, 2.0, None, 1.0)


def lymphoid(c: Canvas) -> None:
    """Sheets of small round dark lymphocytes with hardly any cytoplasm, here and there a germinal centre."""
    z, rng = c.zoom, c.rng
    c.e += 0.25 + 0.1 * c.noise(9)
    c.h += 0.08
    loose = ramp(c.noise(30), 0.9, 1.6)
    centre = np.zeros_like(c.h)
    if rng.random() < 0.4:
        near, _ = c.nearest(np.stack([rng.uniform(20, 140, 2), (900.0, 900.0)]), warp=3)
        centre = ramp(near, 40, 34)
    c.e *= 1 - 0.9 * ramp(c.noise(6), 0.6, 1.3)
    points = c.lattice(6.6 * z, 0.19)
    keep = (c.at(loose, points) < 0.6) & (c.at(centre, points) < 0.5) & (rng.random(len(points)) < 0.96)
    c.nuclei(points[keep], 2.75 * z, 2.6 * z, None, 1.0, 0.1, 0.08)
    points = c.lattice(9.5 * z, 0.2)
    c.nuclei(points[c.at(centre, points) > 0.5], 3.6 * z, 3.2 * z, None, 0.85, 0.7, 0.12)


def necrosis(c: Canvas) -> None:
    """Structureless granular debris with ghosts of cells, nuclear dust and cracks."""
    z, rng = c.zoom, c.rng
    grain = 0.10 * c.noise(2.2) + 0.09 * c.noise(4.5) + 0.08 * c.noise(11) + 0.08 * c.noise(32)
    c.e += np.clip(0.55 + grain, 0.02, None)
    c.h += np.clip(0.14 + 0.07 * c.noise(6), 0, None)
    ghosts = c.lattice(15 * z, 0.3)
    near, _ = c.nearest(ghosts, warp=1.5, length=9)
    c.e += 0.16 * np.exp(-(((near - 5.0 * z) / 1.1) ** 2)) * ramp(c.noise(35), -0.3, 0.5)
    dusty = ramp(c.noise(28), -0.5, 0.9)
    dust = c.lattice(5.2, 0.45)
    dust = dust[rng.random(len(dust)) < 0.75 * c.at(dusty, dust)]
    c.nuclei(dust, 1.5, 1.15, None, 1.05, 0.0, 0.3)
    crack = np.exp(-((c.noise(42) / 0.09) ** 2)) * ramp(c.noise(50), -0.2, 0.3)
    holes = np.clip(crack + ramp(c.noise(6), 1.35, 1.8), 0, 1)
    c.e *= 1 - 0.95 * holes
    c.h *= 1 - 0.95 * holes


def smooth_muscle(c: Canvas) -> None:
    """Wavy parallel bundles of fibres with long cigar-shaped nuclei, two bundles often crossing."""
    z, rng = c.zoom, c.rng
    turn = rng.uniform(0, np.pi)
    region = c.noise(75) + rng.normal(0, 0.4)
    second = ramp(region, 0.45, 0.52) if rng.random() < 0.5 else np.zeros_like(c.h)
    for angle, where in ((turn, 1 - second), (turn + rng.uniform(0.8, 1.6), second)):
        u, v = turned(c.x, c.y, angle)
        wave = 3.2 * np.sin(u / (11 * z) + 0.8 * c.noise(50)) + 6 * c.noise(60)
        v = v + wave
        fibre = 0.6 + 0.16 * c.fibres(u, v, 2.6 * z, 60)
        slit = ramp(c.fibres(u, v, 4.2 * z, 45), 1.05, 1.5)
        c.e = c.e * (1 - where) + where * np.clip(fibre - 0.75 * slit, 0.01, None)
        c.h = c.h * (1 - where) + where * 0.10
        points = c.lattice(13.5 * z, 0.3)
        points = points[c.at(where, points) > 0.5]
        dy, dx = np.gradient(v)
        along = np.arctan2(c.at(dy, points), c.at(dx, points)) - np.pi / 2
        c.nuclei(points, 7.2 * z, 1.6 * z, along, 0.95, 0.15, 0.15)


def squamous_epithelium(c: Canvas) -> None:
    """Layers: stroma with papillae, a dark basal row, maturing polygonal cells, flat surface, glass."""
    z, rng = c.zoom, c.rng
    turn = rng.uniform(0, 2 * np.pi)
    u, v = turned(c.x - 80, c.y - 80, turn)
    depth = v + rng.uniform(-8, 8) + 4 * c.noise(60)
    papillae = 9 * np.sin(u / (9.5 * z) + c.noise(60)) * ramp(depth, -5, 40)
    base = 38 + papillae - depth
    c.stroma(np.ones_like(c.h), 0.5, turn)
    surface = -42 - depth
    epithelium = ramp(base, -0.5, 0.5)
    cells = c.lattice(10.5 * z, 0.16)
    f1, f2 = c.nearest(cells)
    border = np.exp(-(((f2 - f1) / 1.4) ** 2))
    mature = ramp(base, 8, 80)
    c.e = c.e * (1 - epithelium) + epithelium * (0.36 + 0.3 * mature - 0.2 * border * (1 - mature))
    c.h = c.h * (1 - epithelium) + epithelium * (0.22 - 0.16 * mature)
    level = c.at(base, cells)
    spinous = cells[(level > 9) & (level < 58)]
    c.nuclei(spinous, 2.7 * z, 2.4 * z, None, 0.95, 0.35, 0.1)
    basal = c.lattice(5.0 * z, 0.12)
    level = c.at(base, basal)
    basal = basal[(level > 0.5) & (level < 9)]
    c.nuclei(basal, 3.2 * z, 1.7 * z, slope(c, base, basal), 1.05, 0.0, 0.08)
    flat = ramp(surface + 26, -2, 2)
    layers = 0.5 + 0.5 * np.sin(depth * 1.5 / z + 1.3 * c.noise(30))
    c.e = c.e * (1 - flat) + flat * (0.45 + 0.45 * layers)
    c.h *= 1 - 0.7 * flat
    flakes = c.lattice(12 * z, 0.3)
    level = c.at(surface, flakes)
    c.nuclei(flakes[(level > -30) & (level < -3)], 4.0 * z, 1.0, turn, 0.9)
    glass = ramp(surface, -0.6, 0.6)
    c.e *= 1 - glass
    c.h *= 1 - glass
