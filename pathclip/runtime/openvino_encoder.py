"""The Encoder protocol by OpenVINO, which runs the same ONNX files as onnxruntime."""

from __future__ import annotations

import threading
import time
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

# Samples of a batch for each stream at least, and how many streams at most.
LEAST_OF_STREAM = 4
MOST_STREAMS = 8
# Seconds of work in large batches after which streams are opened. They take a second copy of the weights and
# half a second to a second of compiling, and give back a twentieth to an eighth of the time.
STREAMS_AFTER = 10.0


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
        streams_after: seconds of work in large batches after which streams are opened.

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
        streams_after: float = STREAMS_AFTER,
    ) -> None:
        if not is_installed():
            raise ModelFolderError(
                f"{folder.path}: OpenVINO is not installed: pip install 'pathclip[openvino]', "
                "or take runtime=onnx"
            )
        super().__init__(folder, precision, threads)
        self._streams_after = streams_after
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
            return [compiled.create_infer_request() for _ in range(compiled.get_property("NUM_STREAMS"))]

        try:
            return _Requests(name, self._threads, requests, self._streams_after)
        except Exception as error:
            raise ModelFolderError(f"{file}: OpenVINO cannot load it: {brief(error)}") from error


class _Requests:
    """A compiled tower: one request of all threads and, once large batches keep coming, several of few.

    Args:
        name: of the input.
        threads: of all requests together.
        requests: compiles for so many streams, or fewer where the runtime wants it so: a request each.
        streams_after: seconds of work in large batches after which streams are opened.
    """

    def __init__(
        self, name: str, threads: int, requests: Callable[[int], list[Any]], streams_after: float
    ) -> None:
        self._name, self._requests, self._streams_after = name, requests, streams_after
        self._together = requests(1)
        self._streams: list[Any] = []
        # Every stream gets as many threads as the others; a rest would be idle.
        self._most = max(n for n in range(1, MOST_STREAMS + 1) if threads % n == 0)
        self._seconds = 0.0
        self._one_at_a_time = threading.Lock()  # a request holds one input; all threads work on it anyway

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        with self._one_at_a_time:
            large = self._most > 1 and len(values) >= LEAST_OF_STREAM * self._most
            if large and not self._streams and self._seconds >= self._streams_after:
                self._open_streams()
            start = time.perf_counter()
            output = self._run(self._streams if large and self._streams else self._together, values)
            if large:
                self._seconds += time.perf_counter() - start
            return output

    def _open_streams(self) -> None:
        try:
            self._streams = self._requests(self._most)
        except Exception:  # for want of memory, say; it goes on without
            self._most = 1

    def _run(self, requests: list[Any], values: NDArray[Any]) -> NDArray[Any]:
        parts = [np.ascontiguousarray(part) for part in np.array_split(values, len(requests))]
        with ExitStack() as started:  # all are waited for, even where one fails: they read `parts`
            for request, part in zip(requests, parts, strict=True):
                request.start_async({self._name: part}, share_inputs=True)
                started.callback(request.wait)
        return np.concatenate([request.get_tensor(OUTPUT).data for request in requests])


def _import() -> Any:
    """The package; raises ImportError, in one line, for whatever keeps it from being imported."""
    try:
        import openvino

        openvino.Core  # noqa: B018  # an empty folder of that name can be imported too
    except Exception as error:  # a package that is broken may raise anything
        raise ImportError(brief(error)) from error
    return openvino
