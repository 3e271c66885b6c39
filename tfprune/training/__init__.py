"""Training: settings, fit, resume, distillation, and schedules of sparsity and learning rate."""

from tfprune.training.fitting import Training, check, compile, fit

__all__ = ["Training", "check", "compile", "fit"]
