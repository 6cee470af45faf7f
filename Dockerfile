# The operator's image. Built and tried wherever a container engine is; nothing in it is fetched without a hash.
#   docker build -t nightorders:0.1.0 .
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The build backend comes from the locked development tools, so that the wheel is built without anything unlocked.
COPY requirements requirements
RUN python -m venv /tools && /tools/bin/pip install --require-hashes -r requirements/dev.txt \
 && python -m venv /venv && /venv/bin/pip install --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY crds crds
COPY manifests manifests
RUN /tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && /venv/bin/pip install --no-deps --no-index /dist/*.whl \
 && /venv/bin/python -m compileall -q /venv

FROM python:3.11.14-slim-bookworm
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number and not a name, so that the kubelet can tell that it is not root (runAsNonRoot).
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["nightorders"]
CMD ["run"]
