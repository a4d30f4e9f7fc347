# SNCLR on GPUs; see docs/installation.md for how to build and run it.
# hadolint ignore=DL3006
ARG BASE=nvidia/cuda:12.8.1-cudnn-runtime-ubuntu22.04
FROM ${BASE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV DEBIAN_FRONTEND=noninteractive \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/venv/bin:$PATH

# Ubuntu's Python 3.10. A compiler is for mmcv, which is built from source.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        build-essential git libglib2.0-0 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv

WORKDIR /opt/snclr_mm
COPY tools/constraints.txt tools/constraints.txt
# PyTorch first and exactly; INDEX has the builds for a CUDA version.
ARG INDEX=https://download.pytorch.org/whl/cu128
RUN pip install --index-url "${INDEX}" --extra-index-url https://pypi.org/simple \
        -c tools/constraints.txt torch torchvision

COPY . .
RUN pip install -c tools/constraints.txt -e '.[onedl,eval,timm]' \
    && pip uninstall --yes opencv-python \
    && pip install --force-reinstall --no-deps -c tools/constraints.txt opencv-python-headless \
    && python -c 'import snclr_mm'

# Trains as the user of the host, who owns what is written to the mounted folders.
RUN useradd --create-home --uid 1000 trainer
USER 1000
WORKDIR /workspace
RUN ["python", "-c", "import snclr_mm"]
CMD ["bash"]
