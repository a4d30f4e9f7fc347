from collections import defaultdict
from collections.abc import Callable

import torch
from mmpretrain.engine.optimizers import LARS
from mmpretrain.registry import OPTIMIZERS
from torch import Tensor
from torch.distributed.fsdp import FlatParameter


@OPTIMIZERS.register_module()
class ForeachLARS(LARS):
    """MMPretrain's LARS, all parameters at once and without waiting for the device.

    Arguments, numbers and ``state_dict`` are LARS's; a run resumes from one with the
    other. LARS updates one parameter after the other, and reads two norms of each from
    the device; here the norms stay there, and parameters of equal settings are updated
    together by torch's ``_foreach`` operations, also across parameter groups:
    ``paramwise_cfg`` makes one group of each parameter. On a GPU the product with each
    one's own rate is still a launch per parameter.

    The norms are those of the tensors that it is given, so parameters that FSDP has
    sharded are refused; LARS would take the norms of the shards.

    Args:
        params (Iterable): Parameters or parameter groups; ``lars_exclude=True`` in a
            group updates it as plain SGD does.
        lr (float): Learning rate.
        kwargs: As for LARS: ``momentum``, ``weight_decay``, ``dampening``, ``eta``,
            ``nesterov`` and ``eps``.

    Raises:
        ValueError: If a value is out of range, or a parameter is sharded.
    """

    def add_param_group(self, param_group: dict) -> None:
        """Add a group, as torch does, unless FSDP has sharded it."""
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            # FSDP's own mark, with and without use_orig_params.
            if getattr(p, "_fsdp_flattened", False) or isinstance(p, FlatParameter):
                raise ValueError(
                    "ForeachLARS needs whole parameters to take their norms, but these "
                    "are sharded: use AdamW, or train without FSDP (config keys "
                    "optim_wrapper.optimizer.type, strategy)."
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update the parameters that have a gradient.

        Args:
            closure (callable, optional): Computes the loss and its gradients anew.

        Returns:
            Tensor, optional: The closure's loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        alike = defaultdict(list)
        for group in self.param_groups:
            names = (*self.defaults, "lars_exclude")
            settings = tuple((name, group.get(name)) for name in names)
            for p in group["params"]:
                if p.grad is not None:
                    fresh = "momentum_buffer" not in self.state.get(p, ())
                    alike[settings, fresh, p.device, p.dtype].append(p)
        for (settings, *_), params in alike.items():
            self._update(params, dict(settings))
        return loss

    def _update(self, params: list[Tensor], settings: dict) -> None:
        weight_decay, momentum = settings["weight_decay"], settings["momentum"]
        grads = [p.grad for p in params]
        rate = settings["lr"]
        if not settings["lars_exclude"]:
            weight_norm = _norms(params)
            grad_norm = _norms(grads)
            trust = settings["eta"] * weight_norm
            trust /= grad_norm + weight_decay * weight_norm + self.eps
            known = (weight_norm != 0) & (grad_norm != 0)
            rate = list((torch.where(known, trust, 1.0) * rate).unbind())
        steps = torch._foreach_add(grads, params, alpha=weight_decay)
        torch._foreach_mul_(steps, rate)
        if momentum != 0:
            buffers = self._accumulate(params, steps, momentum, settings["dampening"])
            if settings["nesterov"]:
                torch._foreach_add_(steps, buffers, alpha=momentum)
            else:
                steps = buffers
        torch._foreach_sub_(params, steps)

    def _accumulate(
        self,
        params: list[Tensor],
        steps: list[Tensor],
        momentum: float,
        dampening: float,
    ) -> list[Tensor]:
        """The momentum buffers after these steps."""
        states = [self.state[p] for p in params]
        if "momentum_buffer" in states[0]:
            buffers = [state["momentum_buffer"] for state in states]
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, steps, alpha=1 - dampening)
        else:
            buffers = [step.clone() for step in steps]
            for state, buffer in zip(states, buffers, strict=True):
                state["momentum_buffer"] = buffer
        return buffers


def _norms(tensors: list[Tensor]) -> Tensor:
    """Norm of each, [n], in float64 as Python's floats in LARS."""
    return torch.stack(torch._foreach_norm(tensors)).double()
