"""Install with ``pip install -e .``; the OpenMMLab stack comes as an extra."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r"__version__ = ['\"]([^'\"]+)", (ROOT / "snclr_mm/__init__.py").read_text()
).group(1)

# The maintained forks and the originals import under the same names (mmengine,
# mmcv, mmpretrain) but are different distributions, so neither can be a hard
# requirement: install exactly one of [onedl] and [openmmlab].
EXTRAS = {
    # Tested: CI installs these, with tools/constraints.txt.
    "onedl": [
        "onedl-mmengine==0.10.12",
        "onedl-mmcv==2.3.6",
        "onedl-mmpretrain==1.3.6",
    ],
    "openmmlab": [
        "mmengine==0.10.7",
        "mmcv-lite==2.2.0",
        "mmpretrain==1.2.0",
        "numpy<2",
        "opencv-python<4.12",
        "setuptools<81",
    ],
    "downstream": ["onedl-mmdetection==3.5.1", "onedl-mmsegmentation==1.4.2", "ninja"],
    # timm's backbones, through MMPretrain's TIMMBackbone.
    "timm": ["timm>=1.0"],
    # The linear probes, pictures and TensorBoard scalars of the main job.
    "eval": ["scikit-learn>=1.5", "matplotlib>=3.8"],
    "dev": ["pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "ruff>=0.12"],
}

setup(
    name="snclr-mm",
    version=VERSION,
    description="SNCLR (soft neighbors as positive supporters) for MMPretrain",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["snclr_mm", "snclr_mm.*"]),
    install_requires=["torch>=2.6", "numpy", "safetensors"],
    extras_require=EXTRAS,
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
