from .cpu_amp_optim_wrapper import CPUAmpOptimWrapper
from .foreach_lars import ForeachLARS
from .multi_linear_constructor import MultiLinearOptimWrapperConstructor

__all__ = ["CPUAmpOptimWrapper", "ForeachLARS", "MultiLinearOptimWrapperConstructor"]
