"""Image and text tower of an open_clip model to fp32 ONNX, checked against torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pathclip.errors import PathclipError
from pathclip.export.graphs.fold import fold_batch_norms

OPSET = 20
TOLERANCE = 1e-4
# Names that the runtime relies on.
INPUTS = {"image": "pixels", "text": "tokens"}
OUTPUT = "embedding"


class OnnxExportError(PathclipError):
    """A tower cannot be exported, or its ONNX graph does not compute what torch computes."""


def export_towers(
    model: Any, folder: Path, image_size: Sequence[int], context_length: int
) -> dict[str, Path]:
    """Writes `image_fp32.onnx` and `text_fp32.onnx`.

    Batch normalisation is folded into the convolutions and attention written plainly, in `model` too. The
    batch dimension is free, the text length fixed. Embeddings are left as they come, not normalised: the
    runtime does that.

    Args:
        model: open_clip `CLIP` or `CustomTextCLIP` in eval mode.
        folder: an existing folder.
        image_size: (height, width) in pixels.
        context_length: tokens per text.

    Returns:
        'image' and 'text' → file.

    Raises:
        OnnxExportError: a graph differs from torch by more than 1e-4 of the largest value on random input, or
            is over 2 GB.
    """
    files = {tower: folder / f"{tower}_fp32.onnx" for tower in INPUTS}
    for tower, file in files.items():
        export_tower(model, tower, file, image_size, context_length)
    return files


def export_tower(model: Any, tower: str, file: Path, image_size: Sequence[int], context_length: int) -> None:
    """Writes one tower, 'image' or 'text'; see `export_towers`."""
    import torch

    generator = torch.Generator().manual_seed(0)
    if tower == "image":
        example = torch.rand((3, 3, *image_size), generator=generator) * 2 - 1
    else:
        example = _tokens(model, context_length, generator)
    _export(_as_module(model, tower), tower, example, file)


def check_against_torch(expected: np.ndarray, example: Any, file: Path, tower: str) -> float:
    """Largest absolute difference between the graph and torch, for the batch and for its first row alone.

    Args:
        expected: what torch computes for the example, float32 [n, d].
        example: input [n, …].
        file: ONNX file.
        tower: 'image' or 'text'.

    Raises:
        OnnxExportError: it is above 1e-4 of the largest value.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for rows in (slice(0, None), slice(0, 1)):
        got = session.run([OUTPUT], {INPUTS[tower]: example[rows].numpy()})[0]
        worst = max(worst, float(np.abs(got - expected[rows]).max()))
    largest = float(np.abs(expected).max())
    if not worst <= TOLERANCE * largest:
        raise OnnxExportError(
            f"{tower} tower: the ONNX graph differs from torch by {worst:.2g} where the largest value is "
            f"{largest:.2g}, more than {TOLERANCE:g} of it; this architecture exports wrongly with this "
            "version of torch"
        )
    return worst


def _tokens(model: Any, context_length: int, generator: Any) -> Any:
    """Three texts of random tokens; in all the end of text, which CLIP's own tower knows by the largest id.

    The first is half padding, by the id that the tower knows padding by.
    """
    import torch

    text = getattr(model, "text", None)
    vocabulary = int(getattr(model, "vocab_size", 0) or getattr(text, "vocab_size", 0) or 1000)
    pad = getattr(getattr(text, "config", None), "pad_token_id", None)
    tokens = torch.randint(2, vocabulary, (3, context_length), generator=generator)
    tokens[0, context_length // 2 :] = getattr(text, "pad_id", 0) if pad is None else pad
    tokens[:, min(4, context_length - 1)] = vocabulary - 1
    return tokens


def _as_module(model: Any, tower: str) -> Any:
    import torch

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, values: Any) -> Any:
            encode = self.model.encode_image if tower == "image" else self.model.encode_text
            return encode(values, normalize=False)

    transformer: Any = getattr(getattr(model, "text", None), "transformer", None)
    if tower == "text" and hasattr(transformer, "set_attn_implementation"):
        # Plain matrix products: the fused attention adds guards against NaN that the optimiser keeps.
        transformer.set_attn_implementation("eager")
    return Tower().eval()


def _export(module: Any, tower: str, example: Any, file: Path) -> None:
    import onnx
    import torch

    from pathclip.export.graphs.attention import plain_attention

    with _quiet(), torch.no_grad():
        expected = module(example).numpy()
        fold_batch_norms(module, example)
        plain_attention(module)
        batch = torch.export.Dim("batch", min=1, max=65536)
        try:
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["tower_input"],
                output_names=["tower_output"],
                dynamic_shapes=({0: batch},),
                optimize=True,
                verbose=False,
            )
            model = program.model_proto
        except Exception as error:  # torch's exporter raises a dozen kinds
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise OnnxExportError(f"{tower} tower: torch cannot export it ({lines[0]})") from error
    _rename(model, tower)
    _give_each_its_own(model)
    if model.ByteSize() >= 1 << 31:
        raise OnnxExportError(f"{tower} tower: {model.ByteSize() >> 20} MB; one ONNX file holds at most 2 GB")
    onnx.save(model, file)
    check_against_torch(expected, example, file, tower)


def _rename(model: Any, tower: str) -> None:
    """Gives input and output their public names; an inner tensor of that name gets another.

    Also drops the exporter's notes (stack traces with paths of this machine) from the graph.
    """
    public = {"tower_input": INPUTS[tower], "tower_output": OUTPUT}
    graph = model.graph
    rename = {name: f"{name}_inner" for name in public.values()} | public
    for node in graph.node:
        node.input[:] = [rename.get(name, name) for name in node.input]
        node.output[:] = [rename.get(name, name) for name in node.output]
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = rename.get(value.name, value.name)
        del value.metadata_props[:]
    del graph.metadata_props[:], model.metadata_props[:]
    # Functions that the optimiser has inlined are only ballast.
    used = {node.op_type for node in graph.node}
    kept = [function for function in model.functions if function.name in used]
    del model.functions[:]
    model.functions.extend(kept)


def _give_each_its_own(model: Any) -> None:
    """Vectors that the exporter has merged because they were equal, as zero biases are, become several again.

    Who quantises changes the bias of a layer and the gain of a norm; that of another must not change with it.
    """
    from onnx import TensorProto

    vectors = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if len(tensor.dims) == 1 and tensor.data_type == TensorProto.FLOAT
    }
    taken: dict[str, int] = {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name not in vectors:
                continue
            taken[name] = taken.get(name, 0) + 1
            if taken[name] > 1:
                copy = model.graph.initializer.add()
                copy.CopyFrom(vectors[name])
                copy.name = f"{name}_{taken[name]}"
                node.input[place] = copy.name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its steps on stdout and as warnings; a user can act on none of them."""
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in noisy]
    try:
        for logger in noisy:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
