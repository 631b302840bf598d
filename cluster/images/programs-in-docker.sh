#!/usr/bin/env bash
# Owns: what programs.sh makes, made in a builder image that a registry serves, for machines without Rust or Linux.
set -euo pipefail
: "${OUT:?}" "${PROGRAMS:?}" "${BUILDER:?}"
docker buildx build --file cluster/images/programs.Dockerfile --build-arg BUILDER="$BUILDER" \
  --build-arg PROGRAMS="$PROGRAMS" --output "type=local,dest=$OUT" .
