# Two stages: the first compiles, the second is an empty file system holding the binary, the shared libraries it is
# linked to, the CA bundle and a user. There is no shell, no package manager and nothing else to patch or to exploit.
# Only features that every builder knows are used (no BuildKit mounts), so docker and buildah build the same image:
#
#   docker build -t streamlag:0.1.0 .
#   buildah build --format docker -t streamlag:0.1.0 .     (HEALTHCHECK exists in the docker format only)

# This image has gcc, make and libc6-dev (ring and jemalloc compile C) and ca-certificates, so the build installs nothing.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src

# The dependencies first, against a stand-in for the program: this layer is rebuilt only when the manifest or the lock
# file changes. The stand-in's own output is removed, or cargo could take it for the real program, because the copied
# sources may carry older file times than it has. The manifest names the benchmarks and the demo's load generator, which are
# not built here: they only have to be there.
COPY Cargo.toml Cargo.lock ./
COPY .cargo ./.cargo
RUN mkdir -p src benches/forecast benches/scaling scripts \
 && touch benches/core.rs benches/forecast/main.rs benches/scaling/main.rs scripts/loadgen.rs \
 && printf '//! Stand-in, replaced below.\nfn main() {}\n' > src/main.rs \
 && cargo build --release --locked --bin streamlag \
 && cargo clean --release --locked --package streamlag \
 && rm -r src

COPY alerts/streamlag.rules.yml ./alerts/
COPY src ./src
RUN cargo build --release --locked --bin streamlag

# The root of the final image. ldd names the libraries (on any architecture), so a new dependency cannot be forgotten:
# it comes along. Without its table of symbols the program has 16.1 MB in place of 20.9; a panic still names file and line.
# The package records under status.d tell vulnerability scanners which Debian packages they are from.
COPY LICENSE ./
RUN set -eu; \
    root=/image; \
    install -D -m 0755 --strip target/release/streamlag "$root/usr/local/bin/streamlag"; \
    install -D -m 0644 LICENSE "$root/usr/share/doc/streamlag/LICENSE"; \
    ldd target/release/streamlag > libraries; \
    grep -o '/[^ ]*' libraries > paths; \
    while read -r library; do cp -L --parents "$library" "$root"; done < paths; \
    cp -L --parents /etc/ssl/certs/ca-certificates.crt "$root"; \
    mkdir -p "$root/var/lib/dpkg/status.d"; \
    for package in libc6 libgcc-s1 ca-certificates; do \
        dpkg-query --status "$package" > "$root/var/lib/dpkg/status.d/$package"; \
        cp -L --parents "/usr/share/doc/$package/copyright" "$root"; \
    done; \
    cp -L --parents /etc/os-release "$root"; \
    echo 'hosts: files dns' > "$root/etc/nsswitch.conf"; \
    echo 'streamlag:x:65532:65532:streamlag:/nonexistent:/usr/sbin/nologin' > "$root/etc/passwd"; \
    echo 'streamlag:x:65532:' > "$root/etc/group"; \
    chmod 0644 "$root/etc/nsswitch.conf" "$root/etc/passwd" "$root/etc/group"


FROM scratch
COPY --from=build /image/ /

# deploy/check holds VERSION against Cargo.toml; pass --build-arg REVISION="$(git rev-parse HEAD)" when publishing.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="streamlag" \
      org.opencontainers.image.description="Prometheus exporter for consumer-group lag on Redis Streams" \
      org.opencontainers.image.source="https://github.com/streamlag/streamlag" \
      org.opencontainers.image.licenses="Apache-2.0" \
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
