#!/usr/bin/env bash
# Owns: one command of one published Go module, built as a static binary into $OUT.
# Reads: NAME (of the binary), PACKAGE, MODULE, VERSION (with its v), and optionally LDFLAGS.
set -euo pipefail
: "${OUT:?}" "${NAME:?}" "${PACKAGE:?}" "${MODULE:?}" "${VERSION:?}"

work=$(mktemp -d "$OUT/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

export CGO_ENABLED=0 GOFLAGS=-mod=mod GOWORK=off
cat > go.mod <<MOD
module servicechain.example/$NAME

go 1.25.0

require $MODULE $VERSION
MOD
# A blank import of a main package keeps what it needs in the module graph, and nothing else.
cat > command.go <<GO
//go:build tools

package tools

import _ "$PACKAGE"
GO

echo "resolving the modules of $MODULE $VERSION"
go mod tidy
echo "compiling $NAME $VERSION"
go build -v -trimpath -buildvcs=false -ldflags "-s -w ${LDFLAGS:-}" -o "$OUT/$NAME" "$PACKAGE"
