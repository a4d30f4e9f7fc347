"""Each transform of batches against the one of MMCV or MMPretrain on single images."""

import mmcv
import numpy as np
import pytest
import torch
from mmpretrain.registry import BATCH_AUGMENTS, TRANSFORMS
from PIL import Image, ImageFilter
from scipy import stats

from snclr_mm.datasets.transforms.batch import (
    BatchColorJitter,
    BatchGaussianBlur,
    BatchRandomResizedCrop,
    build_transforms,
)

N = 2000  # draws


@pytest.fixture(scope="module")
def images(photos):
    """16 real images, [16, 3, 90, 120] uint8 BGR, light and dark ones."""
    tiles = [
        np.ascontiguousarray(photo[y : y + 90, x : x + 120, ::-1])
        for photo in photos
        for y in (0, 250)
        for x in (0, 150, 300, 500)
    ]
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).contiguous()


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def arrays(images):
    return [image.permute(1, 2, 0).contiguous().numpy() for image in images]


def difference(batch, single):
    """Absolute differences in gray levels; both are lists of the same images."""
    assert batch.dtype == torch.uint8
    assert batch.is_contiguous()
    expected = np.stack(single).astype(int)
    return np.abs(np.stack(arrays(batch)).astype(int) - expected)


@pytest.mark.parametrize(
    "operation, function",
    [(0, mmcv.adjust_brightness), (1, mmcv.adjust_contrast), (2, mmcv.adjust_color)],
)
def test_blending_is_pillows(images, operation, function):
    factors = torch.linspace(0, 2, len(images))[:, None]
    order = torch.full((len(images), 1), operation)
    batch = BatchColorJitter.jitter(images, order, factors)
    pairs = zip(arrays(images), factors.flatten().tolist(), strict=True)
    single = [function(image, factor, backend="pillow") for image, factor in pairs]
    assert difference(batch, single).max() <= 1
    assert (difference(batch, single) > 0).mean() < 1e-4


def test_hue_is_pillows(images):
    factors = torch.linspace(-0.5, 0.5, len(images))[:, None]
    order = torch.full((len(images), 1), 3)
    batch = BatchColorJitter.jitter(images, order, factors)
    pairs = zip(arrays(images), factors.flatten().tolist(), strict=True)
    single = [mmcv.adjust_hue(image, f, backend="pillow") for image, f in pairs]
    # Where Pillow's product lies just below a whole number, it is one hue lower.
    assert (difference(batch, single) > 1).mean() < 0.003
    assert difference(batch, single).max() <= 8


def test_order_matters_and_is_followed(images):
    order = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]]).repeat(8, 1)
    factors = torch.tensor([1.4, 0.6, 1.2, 0.1])[order]
    functions = [
        mmcv.adjust_brightness,
        mmcv.adjust_contrast,
        mmcv.adjust_color,
        mmcv.adjust_hue,
    ]
    single = arrays(images)
    for i, steps in enumerate(order.tolist()):
        for step, factor in zip(steps, factors[i].tolist(), strict=True):
            single[i] = functions[step](single[i], factor, backend="pillow")
    batch = BatchColorJitter.jitter(images, order, factors)
    assert difference(batch, single).mean() < 0.02
    other = BatchColorJitter.jitter(images, order.flip(1), factors.flip(1))
    assert difference(other, single).mean() > 0.5


def test_jitter_draws(generator):
    jitter = BatchColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    order, factors = jitter.draw(N, generator)
    assert (order.sort(1).values == torch.arange(4)).all()
    counts = torch.unique(order, dim=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts.numpy()).pvalue > 0.01
    ranges = [(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]
    for operation, (low, high) in enumerate(ranges):
        drawn = factors[order == operation].numpy()
        uniform = stats.uniform(low, high - low)
        assert stats.kstest(drawn, uniform.cdf).pvalue > 0.01
    two = BatchColorJitter(contrast=(0.5, 0.7), hue=0.1)
    order, factors = two.draw(100, generator)
    assert set(order.flatten().tolist()) == {1, 3}
    assert 0.5 <= factors[order == 1].min() <= factors[order == 1].max() <= 0.7


@pytest.mark.parametrize("low, high", [(0.1, 2.0), (2.0, 7.0)])
def test_blur_is_pillows(images, low, high):
    radii = torch.linspace(low, high, len(images))
    batch = BatchGaussianBlur.blur(images, radii)
    single = [
        np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))
        for image, radius in zip(arrays(images), radii.tolist(), strict=True)
    ]
    # Pillow rounds six times.
    assert difference(batch, single).max() <= 4
    assert difference(batch, single).mean() < 0.5


def test_no_blur_and_blur_of_a_plain_image(images):
    assert (BatchGaussianBlur.blur(images, torch.zeros(len(images))) == images).all()
    plain = torch.full((2, 3, 40, 40), 255, dtype=torch.uint8)
    assert (BatchGaussianBlur.blur(plain, torch.tensor([0.3, 2.0])) == plain).all()


def test_blur_draws(generator):
    blur = BatchGaussianBlur(magnitude_range=(0.1, 2.0), magnitude_std="inf")
    radii = blur.draw_radii(N, generator).numpy()
    assert stats.kstest(radii, stats.uniform(0.1, 1.9).cdf).pvalue > 0.01
    options = dict(magnitude_range=(0.1, 2.0), magnitude_std=4, magnitude_level=7)
    radii = BatchGaussianBlur(**options).draw_radii(N, generator).numpy()
    single = TRANSFORMS.build(dict(type="GaussianBlur", **options))
    expected = [single.random_magnitude() for _ in range(N)]
    assert stats.ks_2samp(radii, expected).pvalue > 0.01
    assert (BatchGaussianBlur(radius=1.5).draw_radii(3, generator) == 1.5).all()


@pytest.mark.parametrize(
    "cfg",
    [
        dict(type="RandomFlip", prob=1.0),
        dict(type="RandomFlip", prob=1.0, direction="vertical"),
        dict(type="RandomFlip", prob=1.0, direction="diagonal"),
        dict(type="Solarize", thr=128, prob=1.0),
        dict(type="Solarize", thr=60.5, prob=1.0),
        dict(
            type="RandomGrayscale",
            prob=1.0,
            keep_channels=True,
            channel_weights=(0.114, 0.587, 0.2989),
        ),
    ],
    ids=str,
)
def test_fixed_ones_are_mmcvs(images, generator, cfg):
    batch = build_transforms([cfg], "transforms")[0](images, generator)
    single = TRANSFORMS.build(cfg)
    single = [single({"img": image})["img"] for image in arrays(images)]
    assert difference(batch, single).max() <= (cfg["type"] == "RandomGrayscale")
    assert (difference(batch, single) > 0).mean() < 0.001


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
@pytest.mark.parametrize("scale", [28, (80, 100), 150])
def test_crops_are_mmcvs(images, generator, backend, scale):
    crop = BatchRandomResizedCrop(scale=scale, backend=backend)
    boxes = crop.draw_boxes(len(images), 90, 120, generator)
    batch = crop.crop(images, boxes)
    height, width = crop.options.scale
    single = [
        mmcv.imresize(
            image[top : top + h, left : left + w].copy(),
            (width, height),
            backend=backend,
        )
        for image, (top, left, h, w) in zip(arrays(images), boxes.int(), strict=True)
    ]
    assert difference(batch, single).max() <= 1


@pytest.mark.parametrize(
    "height, width, options",
    [
        (64, 64, {}),
        (50, 90, dict(crop_ratio_range=(0.3, 1.0))),
        (20, 100, dict(crop_ratio_range=(0.9, 1.0))),  # nothing fits: the middle
        (100, 20, dict(max_attempts=0)),
    ],
)
def test_boxes_are_drawn_as_mmpretrains(generator, height, width, options):
    crop = BatchRandomResizedCrop(scale=32, **options)
    boxes = crop.draw_boxes(N, height, width, generator).numpy()
    image = np.zeros((height, width, 3))
    rows = [crop.options.rand_crop_params(image) for _ in range(N)]
    expected = np.array(rows)[:, [0, 1, 2, 3]]
    for ours, theirs in zip(boxes.T, expected.T, strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 0.01
    assert (boxes[:, 0] + boxes[:, 2] <= height).all()
    assert (boxes[:, 1] + boxes[:, 3] <= width).all()


def test_some_images_change_each_by_itself(images, generator):
    many = images[:1, :, :32, :32].repeat(1000, 1, 1, 1)
    before = many.clone()
    jitter = dict(type="ColorJitter", brightness=0.4)
    cfg = dict(type="RandomApply", transforms=jitter, prob=0.3)
    result = build_transforms([cfg], "transforms")[0](many, generator)
    assert (many == before).all()
    changed = (result != many).flatten(1).any(1)
    assert 0.25 < changed.float().mean() < 0.35
    means = result[changed].float().mean((1, 2, 3))
    assert len(means.unique()) > 0.9 * len(means)
    never = build_transforms([dict(cfg, prob=0.0)], "transforms")[0]
    assert never(many, generator) is many


@pytest.mark.parametrize(
    "cfg, message",
    [
        (dict(type="RandomFlip", prob=[0.2, 0.2], direction=["horizontal"] * 2), "one"),
        (dict(type="RandomGrayscale"), "keep_channels=False"),
        (dict(type="Solarize", magnitude_range=(0, 256)), "thr"),
        (dict(type="ColorJitter", backend="cv2"), "backend='cv2'"),
        (dict(type="RandomResizedCrop", scale=8, interpolation="area"), "'area'"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else None,
)
def test_what_batches_cannot_do(cfg, message):
    with pytest.raises(ValueError, match=f"{message}.*data_preprocessor.transforms"):
        BATCH_AUGMENTS.build(cfg)


@pytest.mark.parametrize("name", ["Resize", "Mixup"])
def test_unknown_transforms(name):
    flip = dict(type="RandomFlip", prob=0.5)
    with pytest.raises(ValueError, match=rf"views\[1\]\.type='{name}'.*ColorJitter, G"):
        build_transforms([flip, dict(type=name)], "views")
