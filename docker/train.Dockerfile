# The image of a GPU server: teach, distill, evaluate, export, study. PyTorch's wheels bring their own CUDA libraries, so
# any image with Python 3.11 or newer, or with Debian's or Ubuntu's packages, can be the base; the driver is the host's.
ARG BASE_IMAGE=nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${BASE_IMAGE} AS build
# train, or ray for `edgeproof study --ray` too.
ARG EXTRAS=train
# Other requirements to fix, as "torch==2.9.1".
ARG REQUIREMENTS=""
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
# hadolint ignore=SC2086
RUN python3 -m venv /opt/edgeproof \
    && /opt/edgeproof/bin/pip install --no-cache-dir ".[${EXTRAS}]" ${REQUIREMENTS} \
    && /opt/edgeproof/bin/pip uninstall --yes pip

FROM ${BASE_IMAGE}
ARG USER_ID=10001
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="edgeproof (training)" \
      org.opencontainers.image.description="Distils and exports a small, adversarially robust image classifier." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The compiler is for `train.compile`, which makes kernels where it runs.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends g++ python3-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/edgeproof /opt/edgeproof
ENV PATH=/opt/edgeproof/bin:${PATH} \
    HOME=/workspace \
    MPLCONFIGDIR=/workspace/.cache/matplotlib \
    TORCHINDUCTOR_CACHE_DIR=/workspace/.cache/inductor \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN edgeproof --version \
    && useradd --uid "${USER_ID}" --home-dir /workspace --no-create-home --shell /usr/sbin/nologin edgeproof \
    && install -d -o edgeproof -g edgeproof /workspace
USER ${USER_ID}
WORKDIR /workspace
VOLUME /workspace
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s CMD ["sh", "-c", "test -w /workspace && edgeproof --version"]
ENTRYPOINT ["edgeproof"]
CMD ["--help"]
