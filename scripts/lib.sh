# shellcheck shell=bash
# Shared by the scripts beside it; sourced by bash, never run.
#
# After sourcing, the working directory is the root of the repository, and errors end the script.

set -euo pipefail

SCRIPTS_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
ROOT_DIR=$(dirname -- "$SCRIPTS_DIR")
cd -- "$ROOT_DIR"

# Debian's own Python: the one for which the packages in scripts/packages are installed.
# shellcheck disable=SC2034
PYTHON=/usr/bin/python3

# What was compiled in one clone is not compiled again in the next: paths count from the clone's root.
export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$ROOT_DIR}
export CCACHE_NOHASHDIR=${CCACHE_NOHASHDIR:-1}

say() {
  printf '==> %s\n' "$*"
}

fail() {
  printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
  exit 1
}

# The packages of some groups of scripts/packages, each once.
packages_of() {
  local group
  for group in "$@"; do
    awk -v group="$group" '$1 == group { print $2 }' "$SCRIPTS_DIR/packages"
  done | sort -u
}

is_installed() {
  # A package's name without architecture; "installed" is the whole third word of its status.
  dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

# Prints the packages of the groups that are not installed.
missing_packages() {
  local package
  for package in $(packages_of "$@"); do
    is_installed "$package" || printf '%s\n' "$package"
  done
}

# Runs a command as root: at once, or by sudo. Fails with what to do when neither is possible.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null 2>&1; then
    sudo -- "$@"
  else
    return 127
  fi
}

# Makes sure that the packages of the groups are there; installs only what is missing.
# EINHORN_NO_INSTALL=1 goes on without installing, for systems that are not Debian.
need_packages() {
  if [ "${EINHORN_NO_INSTALL:-0}" = 1 ]; then
    return 0
  fi
  if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    fail "this is not Debian (no dpkg-query, no apt-get), so nothing can be installed here.
  Needed, by their names in Debian 12: $(packages_of "$@" | tr '\n' ' ')
  With all of that in place: EINHORN_NO_INSTALL=1 $0"
  fi

  local missing
  missing=$(missing_packages "$@" | tr '\n' ' ')
  missing=${missing% }
  if [ -z "$missing" ]; then
    return 0
  fi
  say "installing: $missing"
  if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null 2>&1; then
    fail "packages are missing, and this is neither root nor is there sudo. As root:
  apt-get update && apt-get install --no-install-recommends $missing"
  fi

  # Often the lists are fresh enough; a new container has none at all.
  local log
  log=$(mktemp)
  # shellcheck disable=SC2086
  if install_packages $missing >"$log" 2>&1; then
    rm -f -- "$log"
    return 0
  fi
  say "the package lists are old or empty; reading them anew"
  as_root apt-get -q -o Acquire::Retries=2 -o Acquire::http::Timeout=30 update >"$log" 2>&1 || true
  if grep -qE '^(Err:|E: |W: Failed to fetch)' "$log"; then
    grep -E '^(E: |W: Failed to fetch)' "$log" >&2 || true
    local hint="
  The package server was not reached. Is there a network?"
  fi
  # shellcheck disable=SC2086
  if ! install_packages $missing >"$log" 2>&1; then
    tail -n 8 -- "$log" >&2
    rm -f -- "$log"
    fail "could not install: $missing${hint:-}"
  fi
  rm -f -- "$log"
}

# Makes sure that the tests of pages have their browser, and what drives it: in build/browser, in
# exactly the version that tests/browser/package.json names.
need_browser() {
  need_packages chromium
  local wanted have=none modules=build/browser/node_modules
  wanted=$(sed -n 's/.*"playwright-core": "\(.*\)".*/\1/p' tests/browser/package.json)
  if [ -f "$modules/playwright-core/package.json" ]; then
    have=$(sed -n 's/^ *"version": "\(.*\)".*/\1/p' "$modules/playwright-core/package.json")
  fi
  if [ "$have" = "$wanted" ]; then
    return 0
  fi
  command -v npm >/dev/null 2>&1 || need_packages npm
  say "installing: playwright-core $wanted, into build/browser"
  mkdir -p build/browser
  cp tests/browser/package.json build/browser/
  local log
  log=$(mktemp)
  if ! (cd build/browser && timeout 180 npm install --no-audit --no-fund --no-package-lock --fetch-retries=1 \
    --loglevel=error) >"$log" 2>&1; then
    head -n 4 -- "$log" >&2
    rm -f -- "$log"
    fail "npm could not install playwright-core $wanted for the tests of the dashboard. Is there a network?"
  fi
  rm -f -- "$log"
}

install_packages() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
    -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 -o Acquire::http::Timeout=30 install "$@"
}

# configure PRESET [cmake arguments...]: quiet unless it fails.
configure() {
  local preset=$1 log
  shift
  log=$(mktemp)
  # A cache that was made for another place (a copied or moved clone) is of no use here.
  local cache="build/$preset/CMakeCache.txt"
  if [ -f "$cache" ] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$ROOT_DIR" "$cache"; then
    rm -rf -- "build/$preset"
  fi
  if ! cmake --preset "$preset" "$@" >"$log" 2>&1; then
    cat -- "$log" >&2
    rm -f -- "$log"
    return 1
  fi
  rm -f -- "$log"
}

# build PRESET [targets...]
build() {
  local preset=$1
  shift
  local targets=()
  if [ $# -gt 0 ]; then
    targets=(--target "$@")
  fi
  cmake --build --preset "$preset" --parallel "$(nproc)" "${targets[@]}"
}
