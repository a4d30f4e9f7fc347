import math
from collections import defaultdict

import torch
from mmengine.logging import MessageHub
from mmpretrain.models.utils import CosineEMA
from mmpretrain.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class ForeachCosineEMA(CosineEMA):
    """MMPretrain's CosineEMA, all tensors at once and without waiting for the device.

    Numbers, arguments and ``state_dict`` are CosineEMA's; checkpoints load both ways.
    CosineEMA updates one parameter after the other and reads its step counter from the
    device twice each time; here each kind of update is one call of torch's ``_foreach``
    operations, and the counter is mirrored on the host.

    Parameters are paired by their order, not by name, so that the two models may be
    wrapped (FSDP's names are prefixed).

    Args:
        model (nn.Module): The model to be averaged.
        kwargs: As for CosineEMA: ``momentum``, ``end_momentum``, ``interval``,
            ``device`` and ``update_buffers``.
    """

    def __init__(self, model: nn.Module, *args, **kwargs) -> None:
        super().__init__(model, *args, **kwargs)
        self._steps = 0  # mirrors `steps`
        #: Length of the training; NeighborQueueHook sets it.
        self.max_iters: int | None = None

    @torch.compiler.disable
    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards a model; the first call copies it.

        Args:
            model (nn.Module): Of the averaged model's architecture.

        Raises:
            RuntimeError: If the length of training is not known.
        """
        average, source = self._tensors(self.module), self._tensors(model)
        if self._steps == 0:
            _copy(average, source)
        elif self._steps % self.interval == 0:
            self._move(average, source)
        if not self.update_buffers:
            _copy(list(self.module.buffers()), list(model.buffers()))
        self.steps += 1
        self._steps += 1

    def current_momentum(self) -> float:
        """The weight of the new parameters in the next update.

        Raises:
            RuntimeError: If :attr:`max_iters` is not set and not in the message hub of
                the Runner that was built last, where CosineEMA looks.
        """
        hub = MessageHub.get_current_instance()
        max_iters = self.max_iters or hub.get_info("max_iters")
        if not max_iters:
            raise RuntimeError(
                "The momentum's cosine schedule needs the length of training. "
                "MMEngine's Runner sets it; in a loop of your own, call MessageHub."
                "get_current_instance().update_info('max_iters', ITERATIONS)."
            )
        # A tensor: CosineEMA computes the angle in float32, as its counter is one.
        angle = math.pi * torch.tensor(self._steps) / float(max_iters)
        annealed = (math.cos(angle) + 1) / 2
        return self.end_momentum - (self.end_momentum - self.momentum) * annealed

    def set_steps(self, steps: int) -> None:
        """Go to a step of the schedule."""
        self._steps = steps
        self.steps.fill_(steps)

    def _tensors(self, model: nn.Module) -> list[Tensor]:
        if self.update_buffers:
            return list(model.state_dict().values())
        return list(model.parameters())

    def _move(self, average: list[Tensor], source: list[Tensor]) -> None:
        pairs = zip(average, source, strict=True)
        moved = [(a, s.to(a.device)) for a, s in pairs if a.is_floating_point()]
        average, source = map(list, zip(*moved, strict=True))
        momentum = self.current_momentum()
        torch._foreach_mul_(average, 1 - momentum)
        torch._foreach_add_(average, source, alpha=momentum)

    def _load_from_state_dict(self, *args) -> None:
        super()._load_from_state_dict(*args)
        self._steps = int(self.steps)


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    # By type: the fast kernel takes one at a time, and batch norm's counters are ints.
    groups = defaultdict(list)
    for pair in zip(targets, sources, strict=True):
        groups[tuple((t.dtype, t.device) for t in pair)].append(pair)
    for group in groups.values():
        torch._foreach_copy_(*zip(*group, strict=True))
