"""Short sounds by their spectrogram, as in keyword spotting; the sounds are made, not recorded."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from scipy.signal import spectrogram

RATE = 8000
"""Samples a second."""

SOUNDS = ("rising", "falling", "two tones", "trill", "noise")
_SECONDS = 0.5


def sounds(seed: int = 0, scale: float = 1.0) -> dict[str, Any]:
    """Five kinds of sounds of half a second, at a random pitch, begin and loudness, in noise.

    Args:
        seed: of all that varies.
        scale: how many sounds there are, as a share of 2,000.

    Returns:
        Splits of spectrograms in decibels, float32 (n, times, frequencies, 1), and classes.
    """
    rng = np.random.default_rng(seed)
    counts = {"train": 1400, "validation": 300, "test": 300}
    splits: dict[str, Any] = {}
    for split, count in counts.items():
        labels = np.arange(max(20, round(scale * count))) % len(SOUNDS)
        splits[split] = (np.stack([_spectrogram(rng, label) for label in labels]), labels)
    return {**splits, "classes": list(SOUNDS)}


def _spectrogram(rng: np.random.Generator, label: int) -> np.ndarray:
    time = np.arange(int(RATE * _SECONDS)) / RATE
    pitch, change = rng.uniform(400, 1500), rng.uniform(500, 1500)
    match SOUNDS[label]:
        case "rising":
            phase = pitch * time + change * time**2
        case "falling":
            phase = (pitch + change) * time - change * time**2
        case "two tones":
            phase = np.where(time < _SECONDS / 2, pitch * time, (pitch + change) * time)
        case "trill":
            phase = pitch * time + 10 * np.sin(2 * np.pi * 12 * time)
        case _:
            phase = np.cumsum(rng.uniform(0, 0.5, len(time)))
    begin, end = rng.uniform(0, 0.1), rng.uniform(0.35, _SECONDS)
    sound = np.sin(2 * np.pi * phase) * ((time >= begin) & (time <= end))
    sound = rng.uniform(0.3, 1) * sound + 0.3 * rng.standard_normal(len(time))
    _, _, power = spectrogram(sound, RATE, nperseg=128, noverlap=64)
    decibels = 10 * np.log10(power + 1e-10)
    return ((decibels.T + 60) / 20).astype(np.float32)[..., None]


def ds_cnn(input_shape: tuple[int, ...], classes: int, width: int = 24) -> keras.Model:
    """A small depthwise-separable CNN (Zhang et al. 2017, Hello Edge).

    Args:
        input_shape: of a spectrogram.
        classes: of sounds.
        width: filters of each layer.

    Source:
        https://arxiv.org/abs/1711.07128
    """
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    for _ in range(2):
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.Conv2D(width, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x), name="ds_cnn")
