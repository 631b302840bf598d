#!/usr/bin/env bash
# Owns: the images a control plane and its nodes run, under the names kubeadm asks for, as $OUT/images.tar.
# Reads: the programs' paths, the version, and the tags, as named below.
set -euo pipefail
: "${OUT:?}" "${BASE:?}" "${KUBERNETES_VERSION:?}" "${ETCD_TAG:?}" "${COREDNS_TAG:?}" "${PAUSE_TAG:?}"
: "${LOCAL_PATH_PROVISIONER:?}" "${NODE_TOOLS:?}"
: "${API_SERVER_BIN:?}" "${KUBERNETES_BIN:?}" "${COREDNS_BIN:?}" "${LOCAL_PATH_PROVISIONER_BIN:?}"
here=$(cd "$(dirname "$0")" && pwd)

# The classic builder is part of every engine; BuildKit is a plugin that Debian's does not have.
export DOCKER_BUILDKIT=0
context=$(mktemp -d "$OUT/.context.XXXXXX")
trap 'rm -rf "$context"' EXIT

echo "building $NODE_TOOLS"
cp "$KUBERNETES_BIN/kubectl" "$here/node/pod-network" "$context/"
docker build --network host --build-arg BASE="$BASE" --tag "$NODE_TOOLS" --file "$here/node/tools.Dockerfile" "$context"

built=("$NODE_TOOLS")
one_program() { # image program base
  local name
  name=$(basename "$2")
  echo "building $1"
  rm -rf "${context:?}"/*
  cp "$2" "$context/"
  cat > "$context/Dockerfile" <<DOCKERFILE
FROM $3
COPY $name /usr/local/bin/$name
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
ENTRYPOINT ["/usr/local/bin/$name"]
DOCKERFILE
  docker build --quiet --tag "$1" "$context"
  built+=("$1")
}

for component in kube-apiserver kube-controller-manager; do
  one_program "registry.k8s.io/$component:v$KUBERNETES_VERSION" "$API_SERVER_BIN/$component" scratch
done
one_program "registry.k8s.io/kube-scheduler:v$KUBERNETES_VERSION" "$KUBERNETES_BIN/kube-scheduler" scratch
one_program "registry.k8s.io/kube-proxy:v$KUBERNETES_VERSION" "$KUBERNETES_BIN/kube-proxy" "$NODE_TOOLS"
one_program "registry.k8s.io/etcd:$ETCD_TAG" "$API_SERVER_BIN/etcd" scratch
one_program "registry.k8s.io/coredns/coredns:v$COREDNS_TAG" "$COREDNS_BIN/coredns" scratch
one_program "$LOCAL_PATH_PROVISIONER" "$LOCAL_PATH_PROVISIONER_BIN/local-path-provisioner" scratch

# Kubernetes' own, from the module that the other programs were built from.
source_folder=$(cd / && go mod download -json "k8s.io/kubernetes@v$KUBERNETES_VERSION" |
  sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p')
cc -Os -Wall -static -s "-DVERSION=v$PAUSE_TAG" -o "$OUT/.pause" "$source_folder/build/pause/linux/pause.c"
mv "$OUT/.pause" "$OUT/pause"
one_program "registry.k8s.io/pause:$PAUSE_TAG" "$OUT/pause" scratch

echo "saving ${#built[@]} images"
docker save --output "$OUT/images.tar" "${built[@]}"
# They are in the file, and nothing runs them here.
docker image rm "${built[@]}" > /dev/null
