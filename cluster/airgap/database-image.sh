#!/usr/bin/env bash
# Owns: the image $IMAGE of one database, from its folder $FOLDER of cluster/images, on the shared image $BASE.
set -euo pipefail
: "${IMAGE:?}" "${BASE:?}" "${FOLDER:?}" "${MAJOR:?}"
# The classic builder is part of every engine; BuildKit is a plugin that Debian's does not have.
export DOCKER_BUILDKIT=0
docker build --network host --build-arg BASE="$BASE" --build-arg MAJOR="$MAJOR" --tag "$IMAGE" "cluster/images/$FOLDER"

limit=250000000
bytes=$(docker image inspect --format '{{.Size}}' "$IMAGE")
if [ "$bytes" -ge "$limit" ]; then
  echo "the image of $FOLDER has $bytes bytes; it may have $limit" >&2
  exit 1
fi
