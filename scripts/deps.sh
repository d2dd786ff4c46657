#!/usr/bin/env bash
# Installs what building, the demo and the tests need and the machine does not have. Says what and why; touches nothing that runs.
set -euo pipefail

# command that must be there | Debian and Ubuntu package | why
needs=$(cat <<'TABLE'
cc|gcc|compiles the few C parts of dependencies
protoc|protobuf-compiler|makes the client of containerd's API
containerd|containerd|runs the containers (the demo and the tests start a private one)
runc|runc|starts the containers' processes
ip|iproute2|the tests cross-check what the agent does to the kernel
nft|nftables|security groups in the box; the demo looks for tables that were left behind
docker-registry|docker-registry|serves images in the demo and the tests
curl|curl|the tests ask the box as a script would
nsenter|util-linux|the demo asks from within a task's namespace
python3|python3|the tests drive vpcbox with the AWS SDK for Python
TABLE
)

missing=()
while IFS='|' read -r command package why; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || { missing+=("$package"); echo "missing: $package: $why"; }
done <<<"$needs"
# The demo's image is made of it: the image has no libraries.
if ! [ -x /bin/busybox ] || ldd /bin/busybox >/dev/null 2>&1; then missing+=(busybox-static); echo "missing: busybox-static: the demo's image is made of it"; fi
python3 -c 'import venv, ensurepip' 2>/dev/null || { missing+=(python3-venv); echo "missing: python3-venv: a place of its own for the AWS SDK for Python"; }

[ ${#missing[@]} -eq 0 ] && exit 0
sudo=(); [ "$(id -u)" = 0 ] || sudo=(sudo)
# A package that starts a service when it is installed must not start one here.
policy=/usr/sbin/policy-rc.d
if ! [ -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee $policy >/dev/null
  "${sudo[@]}" chmod 0755 $policy
  trap '"${sudo[@]}" rm -f '"$policy" EXIT
fi
echo "installing: ${missing[*]}"
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
# Nor at the next boot: the tests and the demo start a registry of their own.
if [[ " ${missing[*]} " == *" docker-registry "* ]] && [ -d /run/systemd/system ]; then "${sudo[@]}" systemctl disable -q docker-registry; fi
