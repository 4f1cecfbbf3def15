# Two stages: the first compiles, the second is an empty file system holding one static binary, the CA bundle and a user.
# There is no shell, no loader, no package manager and nothing else to patch or to exploit. It is built for amd64 and arm64
# and cross-compiled, so that neither needs emulation:
#
#   docker buildx build --platform linux/amd64,linux/arm64 -t streamlag:0.1.0 .
#   buildah build --format docker --build-arg BUILDPLATFORM=linux/amd64 --platform linux/arm64 -t streamlag:0.1.0 .
#
# (HEALTHCHECK exists in the docker format only.) Only features that both know are used, so both build the same image.

ARG BUILDPLATFORM
# This image has gcc, make and libc6-dev (ring, SQLite and jemalloc are C) and ca-certificates: only another architecture than that
# of the builder installs anything.
FROM --platform=$BUILDPLATFORM rust:1.95.0-bookworm AS build
WORKDIR /src

# Symbols are of use to nobody in here: a panic names file and line without them.
ENV CARGO_PROFILE_RELEASE_STRIP=symbols

# How to compile for the architecture, in the file that each later step reads. Pages of 64 KiB are common on arm64 only, and
# jemalloc has to know the largest that it may meet. The relative relocations are half a megabyte less; the linker for arm64
# does not make them. The C library is linked in: its resolver knows `files` and `dns` without loading anything.
ARG TARGETARCH
# hadolint ignore=DL3008
RUN set -eu; \
    native=$(dpkg --print-architecture); \
    arch=${TARGETARCH:-$native}; \
    case $arch in \
    amd64) cpu=x86_64 linker=CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER compiler=gcc-x86-64-linux-gnu page=12 \
        flags='-C link-arg=-Wl,-z,pack-relative-relocs' ;; \
    arm64) cpu=aarch64 linker=CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER compiler=gcc-aarch64-linux-gnu page=16 \
        flags='' ;; \
    *) echo "invalid value \"$arch\" for TARGETARCH: expected amd64 or arm64" >&2; exit 1 ;; \
    esac; \
    target=$cpu-unknown-linux-gnu; \
    if [ "$arch" != "$native" ]; then \
        dpkg --add-architecture "$arch"; \
        apt-get update; \
        apt-get install --yes --no-install-recommends "$compiler" "libc6-dev:$arch"; \
        rm -rf /var/lib/apt/lists/*; \
        [ -d "$(rustc --print target-libdir --target "$target")" ] || rustup target add "$target"; \
    fi; \
    { \
        echo "export CARGO_BUILD_TARGET=$target JEMALLOC_SYS_WITH_LG_PAGE=$page $linker=$cpu-linux-gnu-gcc"; \
        echo "export RUSTFLAGS='-C target-feature=+crt-static $flags'"; \
    } > /target

# The dependencies first, against a stand-in for the program: this layer is rebuilt only when the manifest or the lock
# file changes. The stand-in's own output is removed, or cargo could take it for the real program, because the copied
# sources may carry older file times than it has. The manifest names the benchmarks and the demo's load generator, which are
# not built here: they only have to be there.
COPY Cargo.toml Cargo.lock ./
COPY .cargo ./.cargo
RUN . /target \
 && mkdir -p src benches/forecast benches/scaling scripts \
 && touch benches/core.rs benches/forecast/main.rs benches/history.rs benches/scaling/main.rs scripts/loadgen.rs \
 && printf '//! Stand-in, replaced below.\nfn main() {}\n' > src/main.rs \
 && cargo build --release --locked --bin streamlag \
 && cargo clean --release --locked --package streamlag \
 && rm -r src

COPY alerts/streamlag.rules.yml ./alerts/
COPY src ./src
RUN . /target && cargo build --release --locked --bin streamlag

# The root of the final image. The package records under status.d tell vulnerability scanners which Debian packages the files and
# the C library are from; the SBOM beside the licence names the crates.
ARG SOURCE_DATE_EPOCH=0
COPY LICENSE ./
COPY scripts/sbom ./scripts/
RUN set -eu; \
    . /target; \
    root=/image documents=/image/usr/share/doc/streamlag; \
    install -D -m 0755 "target/$CARGO_BUILD_TARGET/release/streamlag" "$root/usr/local/bin/streamlag"; \
    install -D -m 0644 LICENSE "$documents/LICENSE"; \
    scripts/sbom "$CARGO_BUILD_TARGET" > "$documents/streamlag.cdx.json"; \
    cp -L --parents /etc/ssl/certs/ca-certificates.crt "$root"; \
    mkdir -p "$root/var/lib/dpkg/status.d"; \
    arch=${TARGETARCH:-$(dpkg --print-architecture)}; \
    for package in "libc6:$arch" ca-certificates; do \
        dpkg-query --status "$package" > "$root/var/lib/dpkg/status.d/${package%:*}"; \
        cp -L --parents "/usr/share/doc/${package%:*}/copyright" "$root"; \
    done; \
    cp -L --parents /etc/os-release "$root"; \
    echo 'hosts: files dns' > "$root/etc/nsswitch.conf"; \
    echo 'streamlag:x:65532:65532:streamlag:/nonexistent:/usr/sbin/nologin' > "$root/etc/passwd"; \
    echo 'streamlag:x:65532:' > "$root/etc/group"; \
    chmod 0644 "$root/etc/nsswitch.conf" "$root/etc/passwd" "$root/etc/group" "$documents/streamlag.cdx.json"; \
    find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +


FROM scratch
COPY --from=build /image/ /

# deploy/check holds VERSION against Cargo.toml; docs/deploy.md says what to pass when publishing.
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="streamlag" \
      org.opencontainers.image.description="Prometheus exporter for consumer-group lag on Redis Streams" \
      org.opencontainers.image.source="https://github.com/streamlag/streamlag" \
      org.opencontainers.image.url="https://github.com/streamlag/streamlag" \
      org.opencontainers.image.documentation="https://github.com/streamlag/streamlag/blob/main/docs/deploy.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="scratch" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# A number, not a name: Kubernetes can prove runAsNonRoot only from a number.
USER 65532:65532
EXPOSE 8000
STOPSIGNAL SIGTERM

# The probe reads the same environment as the program. Change the port with STREAMLAG_WEB_LISTEN_ADDRESS, not with a
# flag after the image's name: the probe cannot see that flag.
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/streamlag", "--healthcheck"]

# Exec form: streamlag is process 1 and gets SIGTERM itself; it starts no children, so it needs no init.
ENTRYPOINT ["/usr/local/bin/streamlag"]
