"""The Encoder protocol by OpenVINO, which runs the same ONNX files as onnxruntime."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import ModelFolderError
from pathclip.model_folder import ModelFolder
from pathclip.runtime.encoder import Precision, TowerEncoder
from pathclip.runtime.tower import OUTPUT, Tower, brief, check_names, read_tower


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
        settings = {
            "INFERENCE_PRECISION_HINT": self._inference,  # else bfloat16 where the processor has it
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
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
        try:
            request = core.compile_model(model, "CPU", settings).create_infer_request()
        except Exception as error:
            raise ModelFolderError(f"{file}: OpenVINO cannot load it: {brief(error)}") from error
        one_at_a_time = threading.Lock()  # a request holds one input; all threads work on it anyway

        def tower(values: NDArray[Any]) -> NDArray[Any]:
            given = np.ascontiguousarray(values)
            with one_at_a_time:
                request.infer({name: given}, share_inputs=True)
                return np.array(request.get_tensor(OUTPUT).data)

        return tower


def _import() -> Any:
    """The package; raises ImportError, in one line, for whatever keeps it from being imported."""
    try:
        import openvino

        openvino.Core  # noqa: B018  # an empty folder of that name can be imported too
    except Exception as error:  # a package that is broken may raise anything
        raise ImportError(brief(error)) from error
    return openvino
