"""Slims models of keras_hub: classifiers, backbones, segmenters and detectors, with small options.

Their classes have an `__init__` of their own and nest their backbone, as many a project's do. Each
gets random weights. What is asked of each: rebuilding it with nothing removed gives the same bits;
slimmed to half of the filters it equals the original whose readers of the removed channels are
zero, or the plan says "inexact" beforehand; a share of MACs is reached, or refused with what cannot
be counted. It needs keras-hub (the extra `bench`), and no download.

    python -m benchmarks.keras_hub
"""

from __future__ import annotations

import importlib.metadata
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import keras_hub
import numpy as np
import pandas as pd

import tfprune
from tests.filters.harness import examples, silenced
from tfprune.files import write_json, write_text
from tfprune.model.cloning import copy
from tfprune.model.counting import count_macs
from tfprune.pipeline import provenance

MODELS = keras_hub.models
TOLERANCE = 1e-4
IMAGE = {"image_shape": (64, 64, 3)}


def _resnet(**options: Any) -> keras.Model:
    return MODELS.ResNetBackbone(
        **{
            "input_conv_filters": [64],
            "input_conv_kernel_sizes": [7],
            "stackwise_num_filters": [64, 24, 32, 32],
            "stackwise_num_blocks": [1, 2, 1, 1],
            "stackwise_num_strides": [1, 2, 2, 2],
            "block_type": "bottleneck_block",
            **IMAGE,
            **options,
        }
    )


def _densenet() -> keras.Model:
    return MODELS.DenseNetBackbone([2, 2, 2], compression_ratio=0.5, growth_rate=8, **IMAGE)


def _vgg() -> keras.Model:
    return MODELS.VGGBackbone([1, 2, 2], [8, 12, 16], **IMAGE)


def _cspnet() -> keras.Model:
    return MODELS.CSPNetBackbone(
        stem_filters=32,
        stem_kernel_size=3,
        stem_strides=2,
        stackwise_depth=[1, 3, 3, 1],
        stackwise_strides=[1, 2, 2, 2],
        stackwise_num_filters=[32, 64, 64, 64],
        block_type="dark_block",
        stage_type="dark",
        **IMAGE,
    )


def _efficientnet() -> keras.Model:
    return MODELS.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0, 1.0],
        stackwise_depth_coefficients=[1.0, 1.0],
        stackwise_kernel_sizes=[3, 5],
        stackwise_num_repeats=[2, 1],
        stackwise_input_filters=[16, 24],
        stackwise_output_filters=[24, 32],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["fused", "unfused"],
        input_shape=(64, 64, 3),
        num_features=64,
    )


def _mobilenet() -> keras.Model:
    return MODELS.MobileNetBackbone(
        stackwise_expansion=[[20, 32], [32, 32]],
        stackwise_num_blocks=[2, 2],
        stackwise_num_filters=[[8, 8], [16, 16]],
        stackwise_kernel_size=[[3, 3], [5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [2, 2]],
        output_num_filters=48,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=64,
        squeeze_and_excite=0.5,
        **IMAGE,
    )


def _hgnet() -> keras.Model:
    return MODELS.HGNetV2Backbone(
        depths=[1, 1],
        embedding_size=8,
        hidden_sizes=[16, 24],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[[8, 8, 16, 1, 2, 3], [16, 8, 24, 1, 2, 3]],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, True],
        **IMAGE,
    )


def _xception() -> keras.Model:
    return MODELS.XceptionBackbone([[8, 8], [16, 16], [24, 24]], [True, True, False], **IMAGE)


def _mit() -> keras.Model:
    return MODELS.MiTBackbone(
        layerwise_depths=[1, 1, 1, 1],
        num_layers=4,
        layerwise_num_heads=[1, 1, 2, 2],
        layerwise_sr_ratios=[8, 4, 2, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3, 3, 3],
        layerwise_strides=[4, 2, 2, 2],
        hidden_dims=[8, 12, 16, 24],
        **IMAGE,
    )


def _vit() -> keras.Model:
    return MODELS.ViTBackbone((64, 64, 3), (16, 16), 2, 2, 16, 32)


def _deit() -> keras.Model:
    return MODELS.DeiTBackbone((64, 64, 3), 16, 2, 2, 16, 32)


def _swin() -> keras.Model:
    return MODELS.SwinTransformerBackbone((64, 64, 3), 8, [1, 1], [1, 2], 4)


def _dino() -> keras.Model:
    return MODELS.DINOV2Backbone(16, 2, 16, 2, 32, image_shape=(64, 64, 3))


def _retinanet() -> keras.Model:
    return MODELS.RetinaNetBackbone(
        image_encoder=_resnet(), min_level=3, max_level=5, use_p5=True, **IMAGE
    )


def _deeplab() -> keras.Model:
    return MODELS.DeepLabV3Backbone(
        image_encoder=_resnet(),
        spatial_pyramid_pooling_key="P4",
        upsampling_size=4,
        dilation_rates=[6, 12],
        low_level_feature_key="P2",
        projection_filters=8,
        **IMAGE,
    )


BACKBONES: dict[str, Callable[[], keras.Model]] = {
    "ResNet": _resnet,
    "ResNet, basic blocks": lambda: _resnet(block_type="basic_block"),
    "ResNetV2": lambda: _resnet(use_pre_activation=True),
    "VGG": _vgg,
    "DenseNet": _densenet,
    "CSPNet": _cspnet,
    "EfficientNet": _efficientnet,
    "MobileNet": _mobilenet,
    "HGNetV2": _hgnet,
    "Xception": _xception,
    "MiT": _mit,
    "ViT": _vit,
    "DeiT": _deit,
    "Swin": _swin,
    "DINOv2": _dino,
}
CASES: dict[str, Callable[[], keras.Model]] = {
    **{f"{name}, backbone": build for name, build in BACKBONES.items()},
    **{
        f"{name}, classifier": lambda build=build: MODELS.ImageClassifier(build(), 10)
        for name, build in BACKBONES.items()
        if name not in ("DeiT", "DINOv2", "HGNetV2", "Swin", "VGG", "ViT")
    },
    "VGG, its classifier": lambda: MODELS.VGGImageClassifier(_vgg(), 10, pooling_hidden_dim=32),
    "HGNetV2, its classifier": lambda: MODELS.HGNetV2ImageClassifier(
        backbone=_hgnet(), preprocessor=None, num_classes=10
    ),
    "Swin, its classifier": lambda: MODELS.SwinTransformerImageClassifier(_swin(), 10),
    "ViT, its classifier": lambda: MODELS.ViTImageClassifier(_vit(), 10),
    "DeiT, its classifier": lambda: MODELS.DeiTImageClassifier(_deit(), 10),
    "DeepLabV3, segmenter": lambda: MODELS.DeepLabV3ImageSegmenter(_deeplab(), 4),
    "SegFormer, segmenter": lambda: MODELS.SegFormerImageSegmenter(
        MODELS.SegFormerBackbone(image_encoder=_mit(), projection_filters=16), 4
    ),
    "RetinaNet, detector": lambda: MODELS.RetinaNetObjectDetector(
        backbone=_retinanet(), num_classes=4, label_encoder=_labels()
    ),
}


def _labels() -> Any:
    from keras_hub.src.models.retinanet.retinanet_label_encoder import RetinaNetLabelEncoder

    anchors = keras_hub.layers.AnchorGenerator(
        bounding_box_format="xyxy",
        min_level=3,
        max_level=5,
        num_scales=3,
        aspect_ratios=[0.5, 1.0, 2.0],
        anchor_size=4.0,
    )
    return RetinaNetLabelEncoder(bounding_box_format="xyxy", anchor_generator=anchors)


def tried(build: Callable[[], keras.Model]) -> dict[str, Any]:
    """What becomes of one model."""
    keras.utils.set_random_seed(0)
    model = build()
    inputs = examples(model)
    given = inputs[0] if isinstance(model.input, keras.KerasTensor) else _named(model, inputs)
    wanted = _answers(model, given)
    again = _answers(copy(model), given)
    row: dict[str, Any] = {
        "same bits": all((one == other).all() for one, other in zip(wanted, again, strict=True))
    }
    work = count_macs(model)
    row["macs"] = work.whole_macs
    row["not counted"] = ", ".join(sorted(set(work.uncounted.values())))
    groups = tfprune.channel_groups(model)
    removable = sum(int(group.removable.sum()) for group in groups)
    row["channels"] = sum(group.size for group in groups)
    row["removable"] = removable
    row["frozen layers"] = len(groups.frozen)
    if not removable:
        return row
    plan = tfprune.plan(model, filters=0.5)
    slim = tfprune.filters.rebuild(plan)
    row["params left"] = slim.count_params() / model.count_params()
    if plan.inexact:
        row["slim equals masked"] = "said to be inexact"
    else:
        with silenced(groups, plan.alive, {"input"}):
            masked = _answers(model, given)
        answers = _answers(slim, given)
        off = max(
            float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-12))
            for one, other in zip(answers, masked, strict=True)
        )
        row["slim equals masked"] = "yes" if off <= TOLERANCE else f"NO: {off:.1e}"
    try:
        half = tfprune.slim(model, macs=0.5)
        row["macs=0.5"] = f"{tfprune.macs(half) / tfprune.macs(model):.3f}"
    except tfprune.UsageError as error:
        said = str(error)
        row["macs=0.5"] = "refused: " + (
            said[said.index("the least is") :].split(" of the")[0] if "the least" in said else said
        )
    return row


def _named(model: keras.Model, inputs: list[np.ndarray]) -> Any:
    return keras.tree.pack_sequence_as(model.input, inputs)


def _answers(model: keras.Model, given: Any) -> list[np.ndarray]:
    found = model(given, training=False)
    return [np.asarray(keras.ops.convert_to_numpy(each)) for each in keras.tree.flatten(found)]


@click.command()
@click.option("--only", help="Just the cases whose name holds this.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/keras_hub")
)
def main(only: str | None, output: Path) -> None:
    """Slim models of keras_hub."""
    warnings.simplefilter("ignore")
    rows = []
    for name, build in CASES.items():
        if only and only not in name:
            continue
        try:
            row = tried(build)
        except Exception as error:
            row = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"}
        rows.append({"model": name, **row})
        click.echo(rows[-1], err=True)
    table = pd.DataFrame(rows)
    document = {
        "command": "python -m benchmarks.keras_hub",
        "commit": provenance.commit(),
        "versions": provenance.versions() | {"keras-hub": importlib.metadata.version("keras-hub")},
        "machine": provenance.machine(),
        "rows": rows,
    }
    write_json(output.with_suffix(".json"), document)
    write_text(
        output.with_suffix(".md"),
        "# Models of keras_hub\n\nSmall options, random weights, 64 x 64 images. `same bits`: "
        "rebuilt with nothing removed. `slim equals masked`: half of the filters removed, "
        f"within {TOLERANCE:g} of the largest output.\n\n"
        f"{table.fillna('').round(3).to_markdown(index=False)}\n\n"
        f"`{document['command']}` at {document['commit']}, keras-hub "
        f"{document['versions']['keras-hub']}; {document['machine']}\n",
    )


if __name__ == "__main__":
    main()
