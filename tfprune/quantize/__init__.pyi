# The public names, each beside the module it lives in: `__init__.py` loads it at first use.
from .aware import finished as finished
from .aware import quantize_aware as quantize_aware
from .aware import without_rounding as without_rounding
from .building import is_quantize_aware as is_quantize_aware
from .clustering import KeepClusters as KeepClusters
from .clustering import cluster as cluster
from .layers import FakeQuantize as FakeQuantize
from .layers import QuantizedLayer as QuantizedLayer
from .layers import QuantizedScale as QuantizedScale
