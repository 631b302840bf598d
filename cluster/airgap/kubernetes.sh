#!/usr/bin/env bash
# Owns: Kubernetes' own commands, built from its published Go modules as static binaries into $OUT.
# Reads: VERSION (without a v) and COMMANDS (a list separated by spaces).
#
# k8s.io/kubernetes points its staging modules at folders that its published module does not hold. Each of them is
# published by itself as well, at v0.MINOR.PATCH: told so, Kubernetes is a module like any other.
set -euo pipefail
: "${OUT:?}" "${VERSION:?}" "${COMMANDS:?}"

work=$(mktemp -d "$OUT/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

export CGO_ENABLED=0 GOWORK=off
export GOFLAGS=-mod=mod

echo "fetching k8s.io/kubernetes v$VERSION"
# Outside of a module's own folder, so that nothing is written here.
source_folder=$(cd / && go mod download -json "k8s.io/kubernetes@v$VERSION" |
  sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p')
[ -d "$source_folder" ] || { echo "the Go module k8s.io/kubernetes v$VERSION could not be fetched" >&2; exit 1; }

{
  printf 'module servicechain.example/kubernetes\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes v%s\n\n' "$VERSION"
  sed -nE 's#^[[:space:]]*(k8s\.io/[a-z-]+) => \./staging/.*#\1#p' "$source_folder/go.mod" | sort -u |
    while read -r staging; do
      echo "replace $staging => $staging v0.${VERSION#1.}"
    done
} > go.mod
# The checksums Kubernetes itself was tested with; what they do not cover, Go checks with its checksum database.
cp --no-preserve=mode "$source_folder/go.sum" go.sum
{
  printf '//go:build tools\n\npackage tools\n\n'
  for command in $COMMANDS; do
    echo "import _ \"k8s.io/kubernetes/cmd/$command\""
  done
} > commands.go

echo "resolving the modules of Kubernetes $VERSION"
go mod tidy

minor=${VERSION#*.}
component=k8s.io/component-base/version
stamp="-X $component.gitVersion=v$VERSION -X $component.gitMajor=${VERSION%%.*} -X $component.gitMinor=${minor%%.*}"
stamp="$stamp -X $component.gitTreeState=clean -X k8s.io/client-go/pkg/version.gitVersion=v$VERSION"
for command in $COMMANDS; do
  echo "compiling $command $VERSION"
  go build -v -trimpath -buildvcs=false -ldflags "-s -w $stamp" -o "$OUT/$command" "k8s.io/kubernetes/cmd/$command"
done
