# syntax=docker/dockerfile:1
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked && cp target/release/posthaste /usr/local/bin/posthaste

FROM debian:bookworm-slim
# A fixed number, so that volumes and secrets can be given to it.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /app --shell /usr/sbin/nologin posthaste
COPY --from=build /usr/local/bin/posthaste /usr/local/bin/posthaste
COPY scripts/healthcheck /usr/local/bin/posthaste-healthcheck
WORKDIR /app
# The exercise; mount your own resources.yml and configurations over them.
COPY resources.yml ./
COPY configurations configurations
USER 10001:10001
# A container that listens on its own loopback reaches nobody. The console stays there until it is told otherwise: it
# needs log-ins, or an administrator who knows who can reach it (CONSOLE_LISTEN, CONSOLE_UNAUTHENTICATED)
# and under which name it is reached (CONSOLE_HOST).
ENV API_LISTEN=0.0.0.0:8080
EXPOSE 8080 8081
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["posthaste-healthcheck"]
ENTRYPOINT ["posthaste"]
CMD ["run"]
