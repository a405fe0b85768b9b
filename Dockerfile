# The image holds one static binary and nothing else: no shell, no package
# manager, not root. Tell it where its key ring is and keep /data:
#
#   docker run -p 8080:8080 -v carillon:/data -v ./keyring.json:/keyring.json:ro \
#     -e CARILLON_KEY_RING_FILE=/keyring.json carillon

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -buildvcs=false -tags nomsgpack -trimpath \
      -ldflags "-s -w -X main.version=${VERSION}" -o /out/carillon ./cmd/carillon \
 && mkdir /out/data

FROM gcr.io/distroless/static-debian12:nonroot
ARG VERSION=dev
LABEL org.opencontainers.image.title="Carillon" \
      org.opencontainers.image.description="Self-hosted push server: one notification API for FCM, APNs, web push and signed webhooks" \
      org.opencontainers.image.source="https://github.com/carillonhq/carillon" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /out/carillon /carillon
# A new volume takes over this folder's owner, so that the server may write to it.
COPY --from=build --chown=65532:65532 /out/data /data
# Metrics and profiles need no key: do not publish 8081 beyond the network of your Prometheus.
ENV CARILLON_LISTEN=:8080 \
    CARILLON_ADMIN_LISTEN=:8081 \
    CARILLON_DATABASE_URL=/data/carillon.db
VOLUME /data
EXPOSE 8080 8081
USER 65532:65532
HEALTHCHECK --interval=30s --timeout=6s --start-period=15s CMD ["/carillon", "healthcheck"]
ENTRYPOINT ["/carillon"]
CMD ["serve"]
