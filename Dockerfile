# syntax=docker/dockerfile:1
# One file, two images:
#   docker build --target cpu  -t hgrn2-server:0.1.0-cpu  .     runs anywhere, a small model included
#   docker build --target cuda -t hgrn2-server:0.1.0-cuda .     needs an NVIDIA driver and your checkpoint
# Layers go from what changes seldom (packages) to what changes often (sources). deploy/prove_dockerfile.sh
# runs the commands below in a chroot, without a container engine.
ARG CPU_BASE=debian:bookworm-slim
ARG CUDA_BUILD_BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04
ARG CUDA_BASE=ubuntu:24.04

# ---- packages for building -----------------------------------------------------------------------
FROM ${CPU_BASE} AS cpu-packages
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
COPY tools/install_packages.sh /src/tools/install_packages.sh
RUN /src/tools/install_packages.sh \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends patchelf \
 && rm -rf /var/lib/apt/lists/*

FROM ${CUDA_BUILD_BASE} AS cuda-packages
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
COPY tools/install_packages.sh /src/tools/install_packages.sh
RUN /src/tools/install_packages.sh \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends patchelf \
 && rm -rf /var/lib/apt/lists/*

# ---- build: /opt/hgrn2 with bin/, lib/ and share/ --------------------------------------------------
FROM cpu-packages AS cpu-build
WORKDIR /src
COPY . .
# Tests and benchmarks are not in the context; their packages are not in the image.
RUN mkdir -p tests bench && touch tests/CMakeLists.txt bench/CMakeLists.txt
RUN cmake -B build/image -G Ninja -DCMAKE_BUILD_TYPE=Release -DHGRN2_CUDA=OFF -Wno-dev \
 && cmake --build build/image --target hgrn2-server hgrn2-client
RUN deploy/bundle.sh --bin build/image/bin --dir /opt/hgrn2 --model models/hgrn2-gutenberg-12m

FROM cuda-packages AS cuda-build
WORKDIR /src
COPY . .
# Tests and benchmarks are not in the context; their packages are not in the image.
RUN mkdir -p tests bench && touch tests/CMakeLists.txt bench/CMakeLists.txt
RUN cmake -B build/image -G Ninja -DCMAKE_BUILD_TYPE=Release -DHGRN2_CUDA=ON -Wno-dev \
 && cmake --build build/image --target hgrn2-server hgrn2-client
RUN deploy/bundle.sh --bin build/image/bin --dir /opt/hgrn2

# ---- runtime: the base's C library and /opt/hgrn2, nothing installed -------------------------------
FROM ${CPU_BASE} AS cpu
LABEL org.opencontainers.image.title="hgrn2-server" \
      org.opencontainers.image.description="gRPC model server for HGRN2, CPU, with hgrn2-gutenberg-12m" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.documentation="docs/operations.md"
COPY --from=cpu-build /opt/hgrn2 /opt/hgrn2
ENV PATH=/opt/hgrn2/bin:/usr/bin:/bin \
    HGRN2_LOG_FORMAT=json \
    HGRN2_MODEL=/opt/hgrn2/share/models/hgrn2-gutenberg-12m
USER 65532:65532
EXPOSE 50051 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["/opt/hgrn2/bin/hgrn2-client", "health", "--target", "127.0.0.1:50051"]
ENTRYPOINT ["/opt/hgrn2/bin/hgrn2-server"]

FROM ${CUDA_BASE} AS cuda
LABEL org.opencontainers.image.title="hgrn2-server" \
      org.opencontainers.image.description="gRPC model server for HGRN2, NVIDIA GPUs" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.documentation="docs/operations.md"
COPY --from=cuda-build /opt/hgrn2 /opt/hgrn2
# The NVIDIA container runtime mounts the driver's libcuda.so.1.
ENV PATH=/opt/hgrn2/bin:/usr/bin:/bin \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HGRN2_LOG_FORMAT=json \
    HGRN2_MODEL=/models/model
USER 65532:65532
EXPOSE 50051 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --retries=3 \
  CMD ["/opt/hgrn2/bin/hgrn2-client", "health", "--target", "127.0.0.1:50051"]
ENTRYPOINT ["/opt/hgrn2/bin/hgrn2-server"]
