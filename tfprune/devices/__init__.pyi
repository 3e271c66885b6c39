# The public names, each beside the module it lives in: `__init__.py` loads it at first use.
from .base import Device as Device
from .base import Measurement as Measurement
from .base import check_target as check_target
from .measuring import measure_on as measure_on
from .planning import MeasuredPlan as MeasuredPlan
from .planning import plan as plan
from .profiling import DEVICE_FORMATS as DEVICE_FORMATS
from .profiling import Measured as Measured
from .registry import find_device as find_device
