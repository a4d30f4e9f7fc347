"""Small models of every kind, and a loop that trains them."""

import torch

D = 8

RESNET = dict(
    type="ResNet_CIFAR",
    depth=18,
    num_stages=1,
    stem_channels=8,
    base_channels=8,
    strides=(2,),
    dilations=(1,),
    out_indices=(0,),
)
VIT = dict(
    type="MoCoV3ViT",
    arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16),
    img_size=16,
    patch_size=8,
    stop_grad_conv1=True,
)


def neck(**changes):
    cfg = dict(
        type="NonLinearNeck",
        in_channels=8,
        hid_channels=16,
        out_channels=D,
        norm_cfg=dict(type="BN1d"),
    )
    return {**cfg, **changes}


def soft_head(**changes):
    cfg = dict(
        type="SoftNeighborHead",
        predictor=predictor(),
        queue=dict(type="NeighborQueue", length=64, dim=D),
        num_neighbors=5,
        temperature=0.2,
    )
    return {**cfg, **changes}


def predictor():
    return dict(
        type="NonLinearNeck",
        in_channels=D,
        hid_channels=16,
        out_channels=D,
        with_avg_pool=False,
        with_last_bn=False,
        norm_cfg=dict(type="BN1d"),
    )


COSINE = dict(type="CosineSimilarityLoss", shift_factor=2.0, scale_factor=2.0)
CROSS_ENTROPY = dict(type="CrossEntropyLoss")
QUEUE = dict(type="NeighborQueue", length=64, dim=D)
#: Heads and losses of two views, which NeighborKeys wraps.
PAIR_HEADS = {
    "latent": dict(type="LatentPredictHead", loss=COSINE, predictor=predictor()),
    "contrastive": dict(type="ContrastiveHead", loss=CROSS_ENTROPY, temperature=0.3),
    "mocov3": dict(
        type="MoCoV3Head", loss=CROSS_ENTROPY, predictor=predictor(), temperature=0.3
    ),
    "cosine": COSINE,
    "correlation": dict(
        type="LatentCrossCorrelationHead",
        in_channels=D,
        loss=dict(type="CrossCorrelationLoss"),
    ),
}


def train(model, steps, images, size=16):
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(steps):
        shape = (2, images, 3, size, size)
        views = list(torch.randn(shape, generator=generator))
        outputs = model.loss(views, None)
        optimizer.zero_grad()
        outputs["loss"].backward()
        optimizer.step()
        if hasattr(model.head, "queue"):
            assert model.head.queue.commit()
        losses.append(outputs["loss"].item())
    return losses, outputs
