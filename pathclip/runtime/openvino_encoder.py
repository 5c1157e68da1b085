"""The Encoder protocol by OpenVINO, which runs the same ONNX files as onnxruntime."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import ModelFolderError
from pathclip.model_folder import ModelFolder
from pathclip.runtime.encoder import Precision, TowerEncoder
from pathclip.runtime.tower import OUTPUT, Tower, brief, check_names, read_tower

# Streams are opened at the second batch that holds so many samples for each: they take a second copy of the
# weights, which a handful of pictures does not repay.
LEAST_OF_STREAM = 4
MOST_STREAMS = 8


def is_installed() -> bool:
    """Whether OpenVINO can be imported; does not import it."""
    return find_spec("openvino") is not None


def works() -> bool:
    """Whether OpenVINO is installed and can be imported, which it then is."""
    try:
        _import()
    except ImportError:
        return False
    return True


class OpenVinoEncoder(TowerEncoder):
    """Runs the towers in OpenVINO; see `TowerEncoder`.

    The int8 graph is the one that onnxruntime runs; OpenVINO fuses it otherwise and so rounds elsewhere:
    on one folder embeddings of both had a cosine of 0.9966 and more, and probabilities differed by up to
    0.02. What is not int8 is computed in fp32, whatever the processor has. Nothing is stored between runs.

    A small batch is the work of all threads together. Large ones, when they keep coming, are dealt out to
    streams of few threads, which need not wait for one another after every layer: the same numbers.

    Args:
        folder: an open model folder.
        precision: 'int8' or 'fp32', as of `TowerEncoder`.
        threads: of one matrix product; by default the physical cores that the process may use.
        bf16: compute in bfloat16 where the graph is fp32. Only `pathclip bench` asks for it: embeddings
            then have three digits.

    Raises:
        ModelFolderError: as `TowerEncoder`, or OpenVINO is not installed.
    """

    runtime = "openvino"
    library = "OpenVINO"

    def __init__(
        self,
        folder: ModelFolder,
        precision: Precision = "int8",
        threads: int | None = None,
        bf16: bool = False,
    ) -> None:
        if not is_installed():
            raise ModelFolderError(
                f"{folder.path}: OpenVINO is not installed: pip install 'pathclip[openvino]', "
                "or take runtime=onnx"
            )
        super().__init__(folder, precision, threads)
        self._inference: Literal["f32", "bf16"] = "f32"
        if bf16:
            self.precision, self._inference = "bf16", "bf16"

    def _open(self, listed: str, name: str) -> Tower:
        try:
            openvino = _import()
        except ImportError as error:
            raise ModelFolderError(
                f"{self.folder.path}: OpenVINO is installed but cannot be imported ({error}): install it "
                "again, or take runtime=onnx"
            ) from error
        file, content = self.folder.file(listed), read_tower(self.folder, listed)
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self._inference,  # else bfloat16 where the processor has it
            "INFERENCE_NUM_THREADS": self._threads,
            # Threads that are tied to cores wait for whatever else runs there: a third of the speed was lost
            # on a busy machine of two cores, and nothing won on a quiet one.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            core = openvino.Core()
            model = core.read_model(content)
            inputs = [given.get_any_name() for given in model.inputs]
            outputs = [given.get_any_name() for given in model.outputs]
        except Exception as error:  # OpenVINO's exceptions share no base class but this
            raise ModelFolderError(f"{file}: OpenVINO cannot load it: {brief(error)}") from error
        check_names(file, name, inputs, outputs)

        def requests(streams: int) -> list[Any]:
            compiled = core.compile_model(model, "CPU", settings | {"NUM_STREAMS": streams})
            return [compiled.create_infer_request() for _ in range(streams)]

        try:
            return _Requests(name, self._threads, requests)
        except Exception as error:
            raise ModelFolderError(f"{file}: OpenVINO cannot load it: {brief(error)}") from error


class _Requests:
    """A compiled tower: one request of all threads and, once large batches keep coming, several of few."""

    def __init__(self, name: str, threads: int, requests: Callable[[int], list[Any]]) -> None:
        self._name, self._requests = name, requests
        self._together = requests(1)
        self._streams: list[Any] = []
        self._most = min(threads, MOST_STREAMS)
        self._large_batches = 0
        self._one_at_a_time = threading.Lock()  # a request holds one input; all threads work on it anyway

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        with self._one_at_a_time:
            requests = self._requests_for(len(values))
            parts = [np.ascontiguousarray(part) for part in np.array_split(values, len(requests))]
            with ExitStack() as started:  # all are waited for, even where one fails: they read `parts`
                for request, part in zip(requests, parts, strict=True):
                    request.start_async({self._name: part}, share_inputs=True)
                    started.callback(request.wait)
            return np.concatenate([request.get_tensor(OUTPUT).data for request in requests])

    def _requests_for(self, samples: int) -> list[Any]:
        if self._most == 1 or samples < LEAST_OF_STREAM * self._most:
            return self._together
        self._large_batches += 1
        if self._large_batches == 2:
            self._streams = self._requests(self._most)
        return self._streams or self._together


def _import() -> Any:
    """The package; raises ImportError, in one line, for whatever keeps it from being imported."""
    try:
        import openvino

        openvino.Core  # noqa: B018  # an empty folder of that name can be imported too
    except Exception as error:  # a package that is broken may raise anything
        raise ImportError(brief(error)) from error
    return openvino
