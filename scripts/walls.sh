#!/usr/bin/env bash
# The walls between the crates (ARCHITECTURE.md): prints every breach, fails if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
status=0
breach() { echo "wall: $*" >&2; status=1; }

# Only crates/ec2 compiles the EC2 client: 1.24 million lines stay behind one crate.
users=$(cargo tree --workspace --locked -e normal,build,dev -i aws-sdk-ec2 --depth 1 --prefix none | awk 'NR > 1 {print $1}' | sort -u)
[ "$users" = berth-ec2 ] || breach "aws-sdk-ec2 is used by: $users"

# No crate but the agent (and test-only code) sees a sibling; vpcbox and testkit may use netns.
for manifest in crates/*/Cargo.toml; do
  crate=$(basename "$(dirname "$manifest")")
  siblings=$(awk '/^\[/{on = ($0 == "[dependencies]")} on && /^berth-/{sub(/[ .=].*/, ""); print}' "$manifest" | grep -v '^berth-types$' || true)
  case $crate in agent) continue ;; vpcbox | testkit) siblings=$(grep -v '^berth-netns$' <<<"$siblings" || true) ;; esac
  [ -z "$siblings" ] || breach "crates/$crate depends on: $siblings"
done

# vpcbox plays the other side of the wire: it shares no parsing with the agent's side.
if grep -qE '^berth-(types|ec2|eni)' crates/vpcbox/Cargo.toml; then breach "crates/vpcbox shares code with the agent's side"; fi
# The fakes and the harness never reach a program that is installed.
if cargo tree --locked -p berth -e normal --prefix none | grep -qE '^(berth-testkit|vpcbox|e2e) '; then breach "berth links test code"; fi
exit $status
