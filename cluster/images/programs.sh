#!/usr/bin/env bash
# Owns: our programs $PROGRAMS as static binaries in $OUT, with the certificates they trust. The target is named, so that
# the flags are for the programs alone and not for what runs while they are built.
set -euo pipefail
: "${OUT:?}" "${PROGRAMS:?}"

target=$(uname -m)-unknown-linux-gnu
packages=()
# Of the command line, package and binary are named as the project is.
declare -A binary
for program in $PROGRAMS; do
  binary[$program]=servicechain-$program
  [ "$program" != cli ] || binary[$program]=servicechain
  packages+=(--package "${binary[$program]}")
done
RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --target "$target" "${packages[@]}" --bins

target_folder=$(cargo metadata --locked --no-deps --format-version 1 | sed -nE 's/.*"target_directory":"([^"]*)".*/\1/p')
for program in $PROGRAMS; do
  cp "$target_folder/$target/release/${binary[$program]}" "$OUT/$program"
  if readelf --program-headers "$OUT/$program" | grep -q INTERP; then
    echo "$program is not static: it could not start in an image without a distribution" >&2
    exit 1
  fi
done
cp /etc/ssl/certs/ca-certificates.crt "$OUT/ca-certificates.crt"
