"""Plans what goes by what a device measures: milliseconds of TFLite, bytes of a file."""

from tfprune.device.bench import DEVICE_FORMATS, Measured
from tfprune.device.planning import MeasuredPlan, plan

__all__ = ["DEVICE_FORMATS", "Measured", "MeasuredPlan", "plan"]
