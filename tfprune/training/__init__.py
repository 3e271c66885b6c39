"""One training: what it is asked for, how it is fitted and resumed, and its schedules."""

from tfprune.training.fitting import Training, check, compile, fit

__all__ = ["Training", "check", "compile", "fit"]
