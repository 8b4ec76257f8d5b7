# Three images, built by docker-compose.yml:
#   api         serve, migrate, keys and the client's commands; no torch
#   worker      controller (its clerks check, judge and export) and workers on the CPU
#   worker-gpu  workers on GPUs
# pip's downloads are kept between builds and are in no image.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/cache/huggingface
RUN --mount=type=cache,target=/root/.cache/pip pip install --upgrade "pip>=25.1"
# what volumes are mounted on belongs to the user, so new volumes do too
RUN groupadd --gid 1000 mergesearch \
    && useradd --uid 1000 --gid 1000 --create-home --home-dir /cache --shell /usr/sbin/nologin mergesearch \
    && install --directory --owner mergesearch --group mergesearch /exports
WORKDIR /app
COPY pyproject.toml constraints.txt ./

FROM base AS wheel
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip pip wheel --no-deps --wheel-dir /wheels .

FROM base AS api
RUN --mount=type=cache,target=/root/.cache/pip pip install --constraint constraints.txt --group api
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl
USER 1000:1000
EXPOSE 8000
ENTRYPOINT ["mergesearch"]
CMD ["serve"]

# torch alone comes from its own index; what it needs is then resolved with everything else
FROM base AS worker
# merges on the CPU are built by a kernel that is compiled at the first use; without a compiler torch does it, slower
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --constraint constraints.txt --index-url "${TORCH_CPU_INDEX}" torch
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint constraints.txt /wheels/*.whl
USER 1000:1000
ENTRYPOINT ["mergesearch"]
CMD ["worker"]

# the usual build of torch for Linux is for CUDA; an index of another CUDA version may be named
FROM base AS worker-gpu
ARG TORCH_GPU_INDEX=""
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --constraint constraints.txt ${TORCH_GPU_INDEX:+--index-url "${TORCH_GPU_INDEX}"} torch
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint constraints.txt /wheels/*.whl
USER 1000:1000
ENTRYPOINT ["mergesearch"]
CMD ["worker"]
