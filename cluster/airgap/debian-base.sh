#!/usr/bin/env bash
# Owns: Debian's smallest root file system, made by debootstrap from the mirror this host already uses, as the Docker
# image $IMAGE that every image with a distribution in it is built on.
set -euo pipefail
: "${OUT:?}" "${SUITE:?}" "${IMAGE:?}"

# In a mount and process namespace of its own: nothing stays mounted, and nothing runs on, after a run that is cut off.
if [ -z "${IN_NAMESPACE:-}" ]; then
  exec env IN_NAMESPACE=1 unshare --mount --pid --fork --kill-child --propagation private "$0"
fi

# shellcheck disable=SC2016 # apt-get's own variable
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $SUITE" 'Component: main' 'Label: Debian' |
  head -n 1)
root=$OUT/.root
debootstrap --variant=minbase --include=ca-certificates "$SUITE" "$root" ${mirror:+"$mirror"}

# The host's own way to its mirrors, security updates among them, for the images that add packages.
rm -f "$root/etc/apt/sources.list"
for list in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
  if [ -f "$list" ]; then cp "$list" "$root/etc/apt/${list#/etc/apt/}"; break; fi
done
for setting in /etc/apt/apt.conf /etc/apt/apt.conf.d/*; do
  if grep -qsE '^[[:space:]]*Acquire::' "$setting"; then cp "$setting" "$root/etc/apt/apt.conf.d/"; fi
done
cat > "$root/etc/dpkg/dpkg.cfg.d/without-documentation" <<'CFG'
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
CFG
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
awk -v root="$root/" 'index($5, root) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
  while read -r mount; do umount "$mount"; done
rm -rf "$root"/usr/share/{doc,man,info,locale}/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* \
  "$root"/var/log/*.log "$root/etc/resolv.conf" "$root/etc/hostname" "${root:?}"/dev/*

tar --create --numeric-owner --one-file-system --directory "$root" . |
  docker import --change 'ENV LANG=C.UTF-8' - "$IMAGE"
rm -rf "$root"
