# The public names, each beside the module it lives in: `__init__.py` loads it at first use.
from .artifacts import export as export
from .artifacts.by_layer import precision as precision
from .errors import TfpruneError as TfpruneError
from .errors import UsageError as UsageError
from .filters import GroupLasso as GroupLasso
from .filters import channel_groups as channel_groups
from .filters import channel_rule as channel_rule
from .filters import remove_filters as remove_filters
from .learning import LearnStructure as LearnStructure
from .measure.sparsity import sparsity as sparsity
from .model.activations import register_pointwise as register_pointwise
from .model.counting import macs as macs
from .model.loading import load as load
from .pipeline.lottery import lottery as lottery
from .quantize import KeepClusters as KeepClusters
from .quantize import cluster as cluster
from .quantize import quantize_aware as quantize_aware
from .quantize.post_training import correct_biases as correct_biases
from .quantize.post_training import equalize as equalize
from .searching.running import search as search
from .slimming import plan as plan
from .slimming import slim as slim
from .training.schedule import polynomial_decay as polynomial_decay
from .weights import PruneWeights as PruneWeights
from .weights import rewrite_for_xnnpack as rewrite_for_xnnpack

__version__: str
