#!/usr/bin/env bash
# Owns: the image of a kind node, $IMAGE, from Debian's packages, kind's own files, Kubernetes' programs and the control
# plane's images in $IMAGES.
set -euo pipefail
: "${OUT:?}" "${IMAGE:?}" "${BASE:?}" "${IMAGES:?}" "${KIND_VERSION:?}" "${KUBERNETES_VERSION:?}" "${PAUSE_TAG:?}"
: "${KUBERNETES_BIN:?}" "${NODE_TOOLS:?}" "${LOCAL_PATH_PROVISIONER:?}"
here=$(cd "$(dirname "$0")" && pwd)
export DOCKER_BUILDKIT=0

kind_source=$(cd / && go mod download -json "sigs.k8s.io/kind@v$KIND_VERSION" |
  sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p')
context=$(mktemp -d "$OUT/.context.XXXXXX")
trap 'rm -rf "$context"' EXIT
cp -r --no-preserve=mode "$kind_source/images/base/files" "$context/files"
cp "$KUBERNETES_BIN"/{kubelet,kubeadm,kubectl} "$context/"
ln "$IMAGES" "$context/images.tar" 2> /dev/null || cp "$IMAGES" "$context/images.tar"
with_names() {
  sed -e "s#@NODE_TOOLS@#$NODE_TOOLS#g" -e "s#@LOCAL_PATH_PROVISIONER@#$LOCAL_PATH_PROVISIONER#g" "$1"
}
with_names "$here/node/pod-network.yaml" > "$context/default-cni.yaml"
with_names "$here/node/storage.yaml" > "$context/default-storage.yaml"

echo "building $IMAGE"
docker build --network host --build-arg BASE="$BASE" --build-arg KUBERNETES_VERSION="$KUBERNETES_VERSION" \
  --build-arg PAUSE="registry.k8s.io/pause:$PAUSE_TAG" --tag "$IMAGE" --file "$here/node/Dockerfile" "$context"
docker image prune --force --filter label=servicechain.intermediate > /dev/null
