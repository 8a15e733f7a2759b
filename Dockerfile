# syntax=docker/dockerfile:1

# The same Debian release builds and runs it, so that the C library fits.
FROM rust:1.95-bookworm AS build
WORKDIR /src
# librdkafka is built from source against the system's OpenSSL, curl and zlib.
RUN apt-get update && \
    apt-get install -y --no-install-recommends cmake libssl-dev zlib1g-dev libcurl4-openssl-dev && \
    rm -rf /var/lib/apt/lists/*
COPY . .
# The caches outlive the build, the binary does not: it is copied out within the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p runner && \
    install -D target/release/deltaforge /out/deltaforge

FROM debian:bookworm-slim
# The roots against which the certificates of servers are checked, and what librdkafka is linked with.
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates libssl3 libcurl4 zlib1g && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --uid 10001 --user-group --no-create-home --home-dir /app --shell /usr/sbin/nologin deltaforge && \
    install -d -o deltaforge -g deltaforge /app /app/data
COPY --from=build /out/deltaforge /usr/local/bin/deltaforge
# By number, so that an orchestrator can tell that it is not root.
USER 10001:10001
WORKDIR /app
VOLUME /app/data
# The control plane, and the metrics.
EXPOSE 8080 9000
ENTRYPOINT ["deltaforge"]
