"""Judges a model with ncnn: run_ncnn.py MODEL.param MODEL.bin. Its blobs are in0 and out0, as pnnx names them."""

import sys

import ncnn
import numpy as np
from judge import serve


def open_runner(image, classes):
    """Return the function that answers a batch, image by image, as ncnn does."""
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 1  # small images take less time than starting threads
    if net.load_param(sys.argv[1]) or net.load_model(sys.argv[2]):
        sys.exit(f"ncnn cannot load {sys.argv[1]} and {sys.argv[2]}")

    def one(image):
        with net.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(np.ascontiguousarray(image)))
            failed, logits = extractor.extract("out0")
            if failed:
                raise RuntimeError(f"ncnn fails with {failed}")
            return np.array(logits)

    return lambda images: np.stack([one(each) for each in images])


serve(open_runner, name="ncnn", version=ncnn.__version__, device="cpu")
