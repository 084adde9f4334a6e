# syntax=docker/dockerfile:1
# BASE by digest makes a build repeatable: `make image BASE=python:3.13-slim-bookworm@sha256:...` (docs/deploying.md).
# Where there is no registry, BUILD_BASE and RUN_BASE replace it (tests/image/build.sh).
ARG BASE=python:3.13-slim-bookworm
ARG BUILD_BASE=${BASE}
ARG RUN_BASE=${BASE}

FROM ${BUILD_BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
COPY requirements/image.txt /build/requirements/image.txt
# Without dependencies: image.txt lists everything needed, without dependencies that are never imported.
RUN python3 -m venv --without-pip /opt/taskgate \
    && python3 -m pip --python /opt/taskgate/bin/python install --no-compile --no-deps --only-binary :all: \
       --require-hashes -r /build/requirements/image.txt
COPY service /build/service
COPY pyproject.toml tools/install_into_image.py /build/
# The package is copied, not built: a build would need tools that no lock of the image pins. Bytecode that is never
# compared with the sources needs no writable root.
RUN /opt/taskgate/bin/python /build/install_into_image.py /build /opt/taskgate \
    && /opt/taskgate/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/taskgate/lib

FROM ${RUN_BASE} AS run
ARG VERSION=unknown
ARG REVISION=unknown
ARG BASE
LABEL org.opencontainers.image.title="Taskgate" \
      org.opencontainers.image.description="Shares one rate-limited list of scheduled push tasks among many internal services" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
ENV PATH=/opt/taskgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TASKGATE_CONFIG=/etc/taskgate/taskgate.yaml
COPY --from=build /opt/taskgate /opt/taskgate
# Importing every module verifies that nothing is missing, and creates the bytecode of the standard library's modules,
# which the base lacks. Then the base's pip is removed.
RUN python -c "import importlib, pkgutil, service; \
      [importlib.import_module(m.name) for m in pkgutil.walk_packages(service.__path__, 'service.') if 'main' not in m.name]" \
    && rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip
ENV PYTHONDONTWRITEBYTECODE=1
WORKDIR /
USER 10001:10001
EXPOSE 8000 9090
# TASKGATE_CONFIG is the path of the configuration. SIGTERM reaches the only process.
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve"]
