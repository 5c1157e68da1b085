from math import degrees

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision

from pathclip.shards.geometry import (
    Affine,
    Perspective,
    affine_matrices,
    fixed_crop_box,
    homography,
    resized_crop_box,
    warp,
)

SIZE = 64
BILINEAR = InterpolationMode.BILINEAR


def clouds(n=1):
    """Smooth, so that half a pixel's difference of convention stays small."""
    small = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(small, (SIZE, SIZE), mode="bicubic").clamp(0, 1)


def inside(picture):
    """Off the border, where torchvision and we round differently."""
    return picture[..., 12:-12, 12:-12]


def test_an_affine_map_is_torchvisions():
    angle, shear, zoom = 0.17, -0.2, 1.15
    matrices = affine_matrices(
        *(torch.tensor([value]) for value in (angle, shear, zoom)),
        shift=torch.tensor([[4 / SIZE, -3 / SIZE]]),
    )
    wanted = torchvision.affine(
        clouds(), degrees(angle), [4, -3], zoom, [degrees(shear), 0.0], BILINEAR, fill=0
    )
    torch.testing.assert_close(inside(warp(clouds(), matrices)), inside(wanted), atol=1e-3, rtol=0)


def test_a_perspective_is_torchvisions():
    corners = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    moved = corners * torch.tensor([[0.9, 0.8], [0.7, 1.0], [0.85, 0.9], [0.95, 0.75]], dtype=torch.float64)
    start, end = (((points + 1) / 2 * SIZE).tolist() for points in (corners, moved))
    wanted = torchvision.perspective(clouds(), start, end, BILINEAR, fill=0)
    got = warp(clouds(), homography(corners[None], moved[None]))
    # torchvision's corners are those of pixels' centres in one place and of their edges in another.
    assert (inside(got) - inside(wanted)).abs().max() < 0.03


def test_a_homography_takes_the_points_where_they_belong():
    source = torch.tensor([[[-1, -1], [1, -1], [1, 1], [-1, 1]]], dtype=torch.float64)
    target = source + torch.rand(1, 4, 2, dtype=torch.float64) * 0.5
    mapped = torch.cat([source, torch.ones(1, 4, 1, dtype=torch.float64)], -1) @ homography(source, target).mT
    torch.testing.assert_close(mapped[..., :2] / mapped[..., 2:], target)


def test_no_warp_leaves_the_picture():
    batch = clouds(2)
    torch.testing.assert_close(warp(batch, torch.eye(3).expand(2, 3, 3)), batch, atol=1e-4, rtol=0)


def test_every_picture_is_warped_by_its_own_map():
    batch = clouds().expand(2, 3, SIZE, SIZE)
    matrices = Affine().matrices(torch.rand(2, 5, dtype=torch.float64))
    both = warp(batch, matrices)
    assert not torch.allclose(both[0], both[1], atol=0.05)
    torch.testing.assert_close(warp(batch[1:], matrices[1:]), both[1:])


@pytest.mark.parametrize(
    ("options", "column"),
    [({"degrees": 30.0}, 0), ({"shear": 20.0}, 1), ({"scale": (0.5, 1.5)}, 2), ({"translate": 0.3}, 3)],
)
def test_each_setting_of_the_affine_map_changes_it(options, column):
    still = {"degrees": 0.0, "translate": 0.0, "scale": (1.0, 1.0), "shear": 0.0}
    draw = torch.full((1, 5), 0.5)
    draw[0, column] = 0.9
    eye = torch.eye(3)[None]
    assert torch.allclose(Affine(**still).matrices(draw), eye)
    assert not torch.allclose(Affine(**still | options).matrices(draw), eye, atol=0.05)


def test_a_perspective_that_is_not_drawn_moves_nothing():
    draw = torch.rand(3, 9, dtype=torch.float64)
    draw[:, 0] = torch.tensor([0.1, 0.5, 0.9])
    matrices = Perspective(0.5, probability=0.3).matrices(draw)
    eye = torch.eye(3, dtype=torch.float64)
    assert [torch.allclose(matrix, eye) for matrix in matrices] == [False, True, True]


def test_a_fixed_crop_keeps_the_scale_and_stays_inside():
    for draw in torch.rand(50, 4):
        left, top, right, bottom = fixed_crop_box((1024, 768), 512, 224, draw)
        assert right - left == bottom - top == pytest.approx(224 * 768 / 512)
        assert left >= 0 and top >= 0 and right <= 1024 and bottom <= 768


def test_a_resized_crop_has_its_share_of_the_area_and_stays_inside():
    for draw in torch.rand(50, 4):
        left, top, right, bottom = resized_crop_box((1024, 768), (0.3, 0.6), (0.9, 1.1), draw)
        assert 0.29 < (right - left) * (bottom - top) / (1024 * 768) < 0.61
        assert left >= 0 and top >= 0 and right <= 1024 and bottom <= 768


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Affine, {"degrees": 200.0}),
        (Affine, {"translate": 2.0}),
        (Affine, {"scale": (0.0, 1.0)}),
        (Affine, {"shear": 90.0}),
        (Perspective, {"distortion": 1.0}),
        (Perspective, {"probability": 1.5}),
    ],
)
def test_a_warp_that_makes_no_sense_is_refused(kind, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(**wrong)
