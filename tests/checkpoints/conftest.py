import pytest


@pytest.fixture(scope="session", params=["resnet50", "vit-small"])
def trained(request, pretraining_checkpoint):
    """(name, checkpoint) of a training at full width."""
    return request.param, pretraining_checkpoint(request.param)
