# docker build -t portcullis .
# docker build --target symbols --output symbols .      its symbols: portcullis.debug
# docker run -p 8082:8082 -v portcullis:/var/lib/portcullis portcullis

FROM rust:1-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build

# The dependencies first, on empty sources: this layer is built again only when they change.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY demo/Cargo.toml demo/Cargo.toml
COPY scripts/release.sh scripts/strip.sh scripts/
RUN mkdir -p src tests bench demo/src \
    && touch src/lib.rs \
    && for target in src/main.rs tests/main.rs bench/decisions.rs demo/src/main.rs; do echo 'fn main() {}' > "$target"; done \
    && scripts/release.sh \
    && rm -r src

COPY src src
# Cargo goes by modification times, and the copied files may be older than that build.
RUN find src -name '*.rs' -exec touch {} + \
    && scripts/release.sh

FROM scratch AS symbols
COPY --from=build /build/target/release/portcullis.debug /

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin portcullis \
    && install -d -o portcullis -g portcullis /var/lib/portcullis
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /build/target/release/portcullis /usr/local/bin/portcullis
COPY conf /etc/portcullis
COPY LICENSE /usr/share/doc/portcullis/

ARG VERSION=0.1.0 REVISION= CREATED=
LABEL org.opencontainers.image.title="Portcullis" \
      org.opencontainers.image.description="A resilience gateway: one binary, one YAML file, in front of your services" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"

# The number, so that an orchestrator can see it is not root.
USER 10001
ENV PORTCULLIS_CONFIG=/etc/portcullis/gateway-service.yaml \
    PORTCULLIS_DATA=/var/lib/portcullis
VOLUME /var/lib/portcullis
EXPOSE 8082
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/usr/local/bin/portcullis", "health"]
ENTRYPOINT ["/usr/local/bin/portcullis"]
