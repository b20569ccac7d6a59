# The operator's image. The commands for a registry, and for Huawei's in particular, are in docs/install.md; in short:
#   docker buildx build --platform linux/amd64,linux/arm64 --provenance=false --sbom=false --tag IMAGE --push .
# With `--target simulator` the simulated cloud, which the operator's image does not hold.
#
# The base is named by tag; for a build that can be repeated name its digest, too, as your registry shows it for the tag:
# `--build-arg PYTHON_DIGEST=sha256:...`. None is written here because none could be looked up where this was written.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm
ARG PYTHON_DIGEST=""

FROM ${PYTHON_IMAGE}${PYTHON_DIGEST:+@${PYTHON_DIGEST}} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY requirements/build.txt requirements/run.txt requirements/
# What builds the wheel stays in /build/tools; the venv that is shipped holds neither it nor pip.
RUN python -m venv /build/tools \
    && /build/tools/bin/pip install --require-hashes --only-binary :all: --requirement requirements/build.txt \
    && python -m venv --without-pip /venv \
    && /build/tools/bin/pip --python /venv/bin/python install --no-compile \
        --require-hashes --only-binary :all: --requirement requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY operator operator
# The wheel has the simulated cloud, too: it goes into an image of its own.
RUN /build/tools/bin/pip wheel --no-build-isolation --no-deps --wheel-dir dist . \
    && /build/tools/bin/pip --python /venv/bin/python install --no-compile --no-deps --no-index dist/*.whl \
    && mkdir /simulator \
    && mv /venv/lib/python3.*/site-packages/cce_simulator /simulator/ \
    && rm /venv/bin/cce-simulator
# A read-only root cannot be given bytecode later. It is never checked against the sources, which cannot change either.
# Forced, since pip has compiled in its own way what it imported itself from the venv.
RUN /venv/bin/python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /venv/lib /simulator

FROM ${PYTHON_IMAGE}${PYTHON_DIGEST:+@${PYTHON_DIGEST}} AS runtime
# Nothing is installed here later.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/site-packages/pip* /usr/local/lib/python3.*/ensurepip
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="nodepool-membership" \
      org.opencontainers.image.description="Kubernetes operator that makes listed servers members of a customized CCE node pool" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=builder /venv /venv
# One heap, not one for each thread, and what is free goes back: 2 to 4 MiB with a thousand memberships.
ENV MALLOC_ARENA_MAX=1 \
    MALLOC_MMAP_THRESHOLD_=65536 \
    MALLOC_TRIM_THRESHOLD_=65536
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532

FROM runtime AS simulator
COPY --from=builder /simulator /simulator
ENV PYTHONPATH=/simulator
EXPOSE 8900
ENTRYPOINT ["/venv/bin/python", "-m", "cce_simulator"]
CMD ["--bind", "0.0.0.0", "--port", "8900"]

FROM runtime AS operator
EXPOSE 8080
ENTRYPOINT ["/venv/bin/python", "-m", "nodepool_membership"]
CMD ["run"]
