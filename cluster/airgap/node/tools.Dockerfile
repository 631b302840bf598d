# What runs on a node beside the pods: the pod network, the helper of the volumes, and kube-proxy, which calls iptables.
ARG BASE
FROM ${BASE}
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      conntrack ethtool iproute2 ipset iptables kmod \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/*.log
COPY kubectl pod-network /usr/local/bin/
