# The builder's stage of the online path: the same script, in a published image with Rust in it.
ARG BUILDER
FROM ${BUILDER} AS builder
WORKDIR /workspace
COPY . .
ARG PROGRAMS
RUN mkdir /out && OUT=/out PROGRAMS="${PROGRAMS}" cluster/images/programs.sh

FROM scratch
COPY --from=builder /out/ /
