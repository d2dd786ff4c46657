#!/usr/bin/env bash
# Makes a Python with AWS clients (`aws`: boto3 and the AWS CLI) or with moto's server (`moto`) under the target directory, unless it is
# there, and prints the directory of its programs. Exact versions: a new service model must not turn a good build red.
set -euo pipefail
which=${1:?usage: python.sh aws|moto [target directory]}
target=$(realpath -m "${2:-$(dirname "$0")/../target}")
case $which in
aws) packages=(boto3==1.44.5 botocore==1.44.5 awscli==1.46.3) check='import boto3, awscli' ;;
moto) packages=(boto3==1.44.5 botocore==1.44.5 'moto[server,ec2,ecs]==5.2.5') check='import boto3, moto.server' ;;
*) echo "python.sh: expected aws or moto, got $which" >&2; exit 2 ;;
esac
venv=$target/venv-$which
mkdir -p "$target"
# Test programs run side by side; one of them installs.
exec 9>"$venv.lock"
flock 9
if ! "$venv/bin/python" -c "$check" 2>/dev/null; then
  echo "installing: ${packages[*]} into $venv" >&2
  python3 -m venv "$venv" >&2
  "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}" >&2
  "$venv/bin/python" -c "$check"
fi
echo "$venv/bin"
