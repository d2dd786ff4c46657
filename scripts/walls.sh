#!/usr/bin/env bash
# The walls between the crates (ARCHITECTURE.md): prints every breach, fails if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
status=0
breach() { echo "wall: $*" >&2; status=1; }

# Only crates/ec2 compiles the EC2 client, 1.24 million lines, and only crates/ecs the ECS client: each stays behind one crate.
for service in ec2 ecs; do
  users=$(cargo tree --workspace --locked -e normal,build,dev -i "aws-sdk-$service" --depth 1 --prefix none | awk 'NR > 1 {print $1}' | sort -u)
  [ "$users" = "berth-$service" ] || breach "aws-sdk-$service is used by: $users"
done

# No crate but the agent (and test-only code) sees a sibling; vpcbox and testkit may use netns.
for manifest in crates/*/Cargo.toml; do
  crate=$(basename "$(dirname "$manifest")")
  siblings=$(awk '/^\[/{on = ($0 == "[dependencies]")} on && /^berth-/{sub(/[ .=].*/, ""); print}' "$manifest" | grep -v '^berth-types$' || true)
  case $crate in agent) continue ;; vpcbox | testkit) siblings=$(grep -v '^berth-netns$' <<<"$siblings" || true) ;; esac
  [ -z "$siblings" ] || breach "crates/$crate depends on: $siblings"
done

# vpcbox plays the other side of the wire: it shares no parsing with the agent's side, not even in its tests.
shared=$(cargo tree --locked -p vpcbox -e normal,build,dev --depth 1 --prefix none | awk '/^berth-/{print $1}' | sort -u | grep -v '^berth-netns$' || true)
[ -z "$shared" ] || breach "crates/vpcbox shares code with the agent's side: $shared"
# The whole-program tests use programs, as a user does: no crate of theirs.
used=$(cargo tree --locked -p e2e -e normal,build,dev --prefix none | awk '/^(berth|vpcbox)/{print $1}' | sort -u)
[ -z "$used" ] || breach "tests/ links: $used"
# The fakes and the harness never reach a program that is installed.
if cargo tree --locked -p berth -e normal --prefix none | grep -qE '^(berth-testkit|vpcbox|e2e) '; then breach "berth links test code"; fi
exit $status
