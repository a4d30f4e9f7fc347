"""Install with ``pip install -e .``; the OpenMMLab stack comes as an extra."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

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
        "torchvision",  # mmpretrain imports it, and does not ask for it
    ],
    "openmmlab": [
        "mmengine==0.10.7",
        "mmcv-lite==2.2.0",
        "mmpretrain==1.2.0",
        "torchvision",
        "numpy<2",
        "opencv-python<4.12",
        "setuptools<81",
    ],
    "downstream": ["onedl-mmdetection==3.5.1", "onedl-mmsegmentation==1.4.2", "ninja"],
    # timm's backbones, through MMPretrain's TIMMBackbone.
    "timm": ["timm>=1.0"],
    # The linear probes and pictures of the main job.
    "eval": ["scikit-learn>=1.5", "matplotlib>=3.8", "pillow"],
    # What makes a neighbor similar: tools/show_neighbors.py --saliency.
    "saliency": ["grad-cam>=1.5"],
    # Where the curves and pictures of a training may go, besides files.
    "logging": ["tensorboard>=2.17", "wandb>=0.19", "mlflow>=2.14"],
    "dev": [
        "pytest>=8",
        "pytest-xdist>=3.6",
        "filelock",
        "hypothesis>=6.100",
        "ruff>=0.12",
        "tensorboard>=2.17",
        "grad-cam>=1.5",
    ],
    # The documentation site, tools/docs.sh; ruff formats signatures.
    "docs": [
        "mkdocs>=1.6,<2",
        "mkdocs-material>=9.7",
        "mkdocstrings-python>=2.0",
        "latex2mathml>=3.78",
        "ruff>=0.12",
    ],
}

# What MIM, MMEngine (`snclr_mm::...`) and MMPretrain look for in snclr_mm/.mim.
MIM = ("configs", "tools", "model-index.yml")


class BuildWithMim(build_py):
    """Puts copies of ``MIM`` in the wheel; an editable install gets links to them."""

    def run(self) -> None:
        super().run()
        root = ROOT if self.editable_mode else Path(self.build_lib)
        target = root / "snclr_mm/.mim"
        if target.exists():  # of an earlier build; links are removed, not followed
            shutil.rmtree(target)
        target.mkdir()
        for name in MIM:
            if self.editable_mode:
                (target / name).symlink_to(Path("../..", name))
            elif (ROOT / name).is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, target / name, ignore=ignore)
            else:
                shutil.copy(ROOT / name, target)


setup(
    name="snclr-mm",
    version=VERSION,
    description="SNCLR (soft neighbors as positive supporters) for MMPretrain",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    cmdclass={"build_py": BuildWithMim},
    packages=find_packages(include=["snclr_mm", "snclr_mm.*"]),
    package_data={"snclr_mm.visualization": ["templates/*.html"]},
    install_requires=["torch>=2.6", "numpy", "safetensors"],
    extras_require=EXTRAS,
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
