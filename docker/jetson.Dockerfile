# The device image: what `edgeproof verify` needs, with TensorRT from the base image and without PyTorch.
# Built on the device, or wherever its architecture can be run; docs/docker.md says how. Plain enough for the classic
# builder, which a Jetson needs: BuildKit cannot give a build the NVIDIA runtime.
#
# JetPack 6.1 and 6.2 (Orin): the defaults. JetPack 7.x (Thor, Orin): see docs/docker.md.
ARG BASE_IMAGE=nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime

FROM ${BASE_IMAGE} AS build
# The newest one with a wheel for JetPack 6's Python 3.10 on aarch64.
ARG ONNXRUNTIME=1.23.2
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY runtime runtime
COPY export export
COPY pipeline pipeline
COPY edgeproof edgeproof
# Wheels all of it, nothing is compiled. Everything goes into the environment but TensorRT, which it sees in the base
# image's own site-packages: what else that happens to have installed is not counted on.
RUN python3 -m venv --system-site-packages /opt/edgeproof \
    && /opt/edgeproof/bin/pip install --no-cache-dir --ignore-installed '.[report,onnx,jetson]' \
      "onnxruntime==${ONNXRUNTIME}" \
    && /opt/edgeproof/bin/pip uninstall --yes setuptools pip

FROM ${BASE_IMAGE}
# The build fails where this does. A stand-in without TensorRT says "pass".
ARG TENSORRT_TEST="import tensorrt"
ARG USER_ID=10001
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="edgeproof (device)" \
      org.opencontainers.image.description="Attacks the exported classifier on the device that runs it, and judges it." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/edgeproof /opt/edgeproof
ENV PATH=/opt/edgeproof/bin:${PATH} \
    EDGEPROOF_BACKEND=tensorrt \
    EDGEPROOF_STATE=/state \
    HOME=/state
# The group owns a Jetson's GPU devices; /state alone is ever written.
RUN { python3 -c "${TENSORRT_TEST}" \
      || { echo "TensorRT does not load; on a Jetson build as docs/docker.md says, under 'The build needs the GPU'" >&2; \
           exit 1; }; } \
    && edgeproof --version \
    && useradd --uid "${USER_ID}" --groups video --home-dir /state --no-create-home --shell /usr/sbin/nologin edgeproof \
    && install -d -o edgeproof -g edgeproof /state
USER ${USER_ID}
WORKDIR /state
VOLUME /state
HEALTHCHECK --interval=60s --timeout=30s --start-period=30s CMD ["sh", "-c", "test -w /state && edgeproof --version"]
ENTRYPOINT ["edgeproof"]
CMD ["--help"]
