"""Registries in the scope ``snclr_mm``, and the configs that are installed.

Components are registered in MMPretrain's and MMEngine's registries, so that configs of
MMPretrain name them without a scope. The registries here hold nothing and look up
there: ``snclr_mm.SNCLR`` works from any scope, and with ``default_scope = 'snclr_mm'``
the names of MMPretrain and MMEngine do.
"""

from pathlib import Path

import mmengine.registry
import mmpretrain.registry
from mmengine.config import utils
from mmengine.registry import Registry
from mmpretrain.apis.model import ModelHub

#: Configs, tools and the model index, as they are installed (see setup.py).
MIM = Path(__file__).with_name(".mim")


class ScopedRegistry(Registry):
    """Another registry under the scope ``snclr_mm``.

    Args:
        source (Registry): Where names are looked up.
    """

    def __init__(self, source: Registry) -> None:
        # A child of the root's: MMEngine looks for scopes no deeper.
        parent = source.parent or source
        locations = [__package__]
        super().__init__(
            source.name, parent=parent, scope="snclr_mm", locations=locations
        )
        self.source = source

    def get(self, key: str) -> type | None:
        """Look up ``Name``, ``snclr_mm.Name``, or what ``source`` knows."""
        scope, name = self.split_scope_key(key)
        own = scope == self.scope and "." not in name
        return self.source.get(name if own else key)


RUNNERS = ScopedRegistry(mmpretrain.registry.RUNNERS)
RUNNER_CONSTRUCTORS = ScopedRegistry(mmpretrain.registry.RUNNER_CONSTRUCTORS)
LOOPS = ScopedRegistry(mmpretrain.registry.LOOPS)
HOOKS = ScopedRegistry(mmpretrain.registry.HOOKS)
LOG_PROCESSORS = ScopedRegistry(mmpretrain.registry.LOG_PROCESSORS)
OPTIMIZERS = ScopedRegistry(mmpretrain.registry.OPTIMIZERS)
OPTIM_WRAPPERS = ScopedRegistry(mmpretrain.registry.OPTIM_WRAPPERS)
OPTIM_WRAPPER_CONSTRUCTORS = ScopedRegistry(
    mmpretrain.registry.OPTIM_WRAPPER_CONSTRUCTORS
)
PARAM_SCHEDULERS = ScopedRegistry(mmpretrain.registry.PARAM_SCHEDULERS)
DATASETS = ScopedRegistry(mmpretrain.registry.DATASETS)
DATA_SAMPLERS = ScopedRegistry(mmpretrain.registry.DATA_SAMPLERS)
TRANSFORMS = ScopedRegistry(mmpretrain.registry.TRANSFORMS)
MODELS = ScopedRegistry(mmpretrain.registry.MODELS)
MODEL_WRAPPERS = ScopedRegistry(mmpretrain.registry.MODEL_WRAPPERS)
WEIGHT_INITIALIZERS = ScopedRegistry(mmpretrain.registry.WEIGHT_INITIALIZERS)
BATCH_AUGMENTS = ScopedRegistry(mmpretrain.registry.BATCH_AUGMENTS)
TASK_UTILS = ScopedRegistry(mmpretrain.registry.TASK_UTILS)
TOKENIZER = ScopedRegistry(mmpretrain.registry.TOKENIZER)
METRICS = ScopedRegistry(mmpretrain.registry.METRICS)
EVALUATORS = ScopedRegistry(mmpretrain.registry.EVALUATORS)
VISUALIZERS = ScopedRegistry(mmpretrain.registry.VISUALIZERS)
VISBACKENDS = ScopedRegistry(mmpretrain.registry.VISBACKENDS)
# MMPretrain has no registries of these.
STRATEGIES = ScopedRegistry(mmengine.registry.STRATEGIES)
FUNCTIONS = ScopedRegistry(mmengine.registry.FUNCTIONS)
INFERENCERS = ScopedRegistry(mmengine.registry.INFERENCERS)


def register_configs() -> None:
    """Let MMEngine find ``snclr_mm::`` configs, and MMPretrain the models by name.

    A model's config is read when it is asked for. In a checkout that is not installed
    (``pip install -e .``) there is no index, and names of models are not known.
    """
    utils.MODULE2PACKAGE["snclr_mm"] = "snclr_mm"
    index = MIM / "model-index.yml"
    if index.exists():
        ModelHub.register_model_index(index, config_prefix=MIM)
