#!/usr/bin/env bash
# Owns: what the tests of controllers need, and a control plane's heart: etcd, kube-apiserver and
# kube-controller-manager in $OUT.
set -euo pipefail
: "${OUT:?}" "${ETCD_VERSION:?}" "${KUBERNETES_VERSION:?}"
here=$(cd "$(dirname "$0")" && pwd)

module=go.etcd.io/etcd/server/v3
NAME=etcd PACKAGE=$module MODULE=$module VERSION=v$ETCD_VERSION "$here/go-tool.sh"
VERSION=$KUBERNETES_VERSION COMMANDS='kube-apiserver kube-controller-manager' "$here/kubernetes.sh"
