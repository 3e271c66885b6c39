"""Layers whose channels cannot go, each with the reason why."""

from __future__ import annotations

from keras import layers

from tfprune.filters.rules.registry import channel_rule, refusing

channel_rule(layers.Lambda)(refusing("is a Lambda, whose function nobody can look into"))
channel_rule(layers.Masking)(refusing("skips a step by the values of all its channels"))
channel_rule(layers.Attention, layers.AdditiveAttention)(
    refusing("compares whole channel vectors with each other")
)
channel_rule(layers.Dot)(refusing("multiplies and sums whole channel vectors"))
channel_rule(layers.RNN)(refusing("is an RNN around a cell, which has no rule"))
channel_rule(layers.SpectralNormalization)(
    refusing("divides a kernel by a norm of all its filters")
)
