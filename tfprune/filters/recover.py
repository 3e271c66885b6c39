"""What brings accuracy back after channels were removed, before any training."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from tfprune.model.cloning import compile_like, copy
from tfprune.model.graph import named_layers


def recalibrated(model: keras.Model, images: np.ndarray, batch_size: int = 256) -> keras.Model:
    """A copy whose BatchNorm statistics are those of `images`.

    After a removal the moving statistics still describe the activations of the larger model.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        images: float or uint8 (n, height, width, channels), training images as the training saw
            them, augmented if it did; see `tfprune.data.seen`.
        batch_size: images a forward pass; statistics are averaged over the batches.

    Returns:
        The model with every other weight the same; compiled like the original where it was.
    """
    twin = copy(model)
    norms = [
        layer
        for layer in named_layers(twin).values()
        if isinstance(layer, layers.BatchNormalization) and layer.trainable
    ]
    momenta = [layer.momentum for layer in norms]
    full = max(1, len(images) // batch_size)
    for index in range(full):
        for layer in norms:
            # i/(i+1) turns the moving average into the plain mean over the batches seen so far.
            layer.momentum = index / (index + 1)
        batch = images[index * batch_size : (index + 1) * batch_size]
        twin(np.asarray(batch, np.float32), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    compile_like(model, twin)
    return twin
