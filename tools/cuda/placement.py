"""Lists the nodes that ONNX Runtime would leave to the CPU: `python -m tools.cuda.placement WHEEL MODEL.onnx...`.

Get a WHEEL for this Python by `pip download --no-deps onnxruntime-gpu==VERSION`. No GPU is needed.
The graphs are opened as `--provider cuda` opens them. The exit code is 1 if a graph is refused.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

from tools.cuda.stand_in import StandIn, stand_in

PLACED = re.compile(r"Node\(s\) placed on \[(\w+)\]")
NODE = re.compile(r"VerifyEachNodeIsAssignedToAnEp\]\s+(\w+) \((.*)\)")


def say_refused(*models: str) -> None:
    """Print the version of ONNX Runtime, and for each graph that edgeproof refuses for CUDA the message, as JSON."""
    import onnxruntime

    from runtime.backends.ort import OrtSession
    from runtime.errors import EdgeproofError

    refused = {}
    for model in models:
        try:
            OrtSession(Path(model).read_bytes(), None, precision="any", provider="cuda").close()
        except EdgeproofError as error:
            refused[model] = error.message
    print(json.dumps({"version": onnxruntime.__version__, "refused": refused}))


def log_placement(model: str) -> None:
    """Open a graph on CUDA with the CPU as fallback, so that ONNX Runtime logs the provider of each node."""
    import onnxruntime

    from runtime.backends.providers import NOT_ON_GPU

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 0
    onnxruntime.InferenceSession(
        model, options, providers=["CUDAExecutionProvider"], disabled_optimizers=NOT_ON_GPU, enable_fallback=0
    )


def left(runtime: StandIn, model: str) -> list[str]:
    """Return the nodes of a graph that are placed on the CPU, such as `Atanh grad/Atanh_12`."""
    found, provider = [], ""
    for line in runtime.run("tools.cuda.placement:log_placement", model).stderr.splitlines():
        if placed := PLACED.search(line):
            provider = placed[1]
        elif (node := NODE.search(line)) and provider == "CPUExecutionProvider":
            found.append(f"{node[1]} {node[2]}")
    return found


def main(wheel: str, *models: str) -> int:
    """Print the nodes that each refused graph leaves to the CPU; return how many graphs are refused."""
    with stand_in(Path(wheel)) as runtime:
        try:
            said = json.loads(runtime.run("tools.cuda.placement:say_refused", *models).stdout)
        except subprocess.CalledProcessError as error:
            sys.exit(error.stderr)
        for model, message in said["refused"].items():
            print(f"{model}: {', '.join(left(runtime, model)) or message}")
    print(f"ONNX Runtime {said['version']}: {len(models) - len(said['refused'])} of {len(models)} graphs whole on CUDA")
    return len(said["refused"])


if __name__ == "__main__":
    sys.exit(min(1, main(*sys.argv[1:])))
