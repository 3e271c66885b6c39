"""Plans removals by what a device measures: milliseconds of TFLite, or bytes of a file."""

from tfprune.devices.cpu import DEVICE_FORMATS, Measured
from tfprune.devices.planning import MeasuredPlan, plan

__all__ = ["DEVICE_FORMATS", "Measured", "MeasuredPlan", "plan"]
