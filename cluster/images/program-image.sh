#!/usr/bin/env bash
# Owns: the image $IMAGE of one of our programs, $PROGRAM in the folder $PROGRAMS_BIN.
set -euo pipefail
: "${OUT:?}" "${IMAGE:?}" "${PROGRAM:?}" "${PROGRAMS_BIN:?}" "${VERSION:?}"
limit=25000000
bytes=$(($(wc -c < "$PROGRAMS_BIN/$PROGRAM") + $(wc -c < "$PROGRAMS_BIN/ca-certificates.crt")))
if [ "$bytes" -ge "$limit" ]; then
  echo "the image of $PROGRAM would have $bytes bytes; it may have $limit" >&2
  exit 1
fi

context=$(mktemp -d "$OUT/.context.XXXXXX")
trap 'rm -rf "$context"' EXIT
cp "$PROGRAMS_BIN/$PROGRAM" "$PROGRAMS_BIN/ca-certificates.crt" cluster/images/Dockerfile "$context/"
# The classic builder is part of every engine; BuildKit is a plugin that Debian's does not have.
export DOCKER_BUILDKIT=0
docker build --build-arg PROGRAM="$PROGRAM" --build-arg VERSION="$VERSION" --tag "$IMAGE" "$context"
