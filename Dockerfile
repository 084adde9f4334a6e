# syntax=docker/dockerfile:1
# Both bases can be replaced, so that it can be built where there is no registry (tests/image/build.sh does).
ARG BUILD_BASE=python:3.13-slim-bookworm
ARG RUN_BASE=python:3.13-slim-bookworm

FROM ${BUILD_BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
COPY requirements/image.txt /build/requirements/image.txt
RUN python3 -m venv --without-pip /opt/taskgate \
    && python3 -m pip --python /opt/taskgate/bin/python install --no-compile --only-binary :all: \
       --require-hashes -r /build/requirements/image.txt
COPY service /build/service
COPY pyproject.toml /build/
# The package is copied, not built: a build would need tools that no lock of the image pins. Its metadata tells the
# version, its script is `taskgate`. Bytecode that is never compared with the sources needs no writable root.
COPY tests/image/install.py /build/
RUN /opt/taskgate/bin/python /build/install.py /build /opt/taskgate \
    && /opt/taskgate/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/taskgate/lib

FROM ${RUN_BASE} AS run
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Taskgate" \
      org.opencontainers.image.description="Shares one rate-limited list of scheduled push tasks among many internal services" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/taskgate/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TASKGATE_CONFIG=/etc/taskgate/taskgate.yaml
COPY --from=build /opt/taskgate /opt/taskgate
WORKDIR /
USER 10001:10001
EXPOSE 8000 9090
# TASKGATE_CONFIG says where the configuration is. SIGTERM reaches the one process that there is.
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve"]
