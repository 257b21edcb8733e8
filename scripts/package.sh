#!/usr/bin/env bash
# Builds a wheel of the binary for the portable CPU and of the Python package into dist/, then tests it in a fresh virtual
# environment, outside the source tree: `embodied-r --version`, `doctor`, `quickstart`, `python -m embodied_r`, `events`.
#
#     scripts/package.sh [--no-try]
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

try=yes
case ${1:-} in
'') ;;
--no-try) try=no ;;
*) fail "unknown argument \`$1\`" "run scripts/package.sh [--no-try]" ;;
esac

system_packages
rust_toolchain
# On Debian, virtual environments need python3-venv.
python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3 python3-venv
cd "$root"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# zig links against glibc 2.28, independently of this machine's glibc.
say "installing maturin"
python3 -m venv "$work/build"
"$work/build/bin/pip" install --quiet --disable-pip-version-check maturin==1.16.0 ziglang==0.15.2

say "maturin build"
rm -rf "$work/dist"
PATH="$work/build/bin:$PATH" "$work/build/bin/maturin" build --profile dist --zig \
    --compatibility manylinux_2_28 --out "$work/dist"
mkdir -p dist
cp "$work"/dist/*.whl dist/
for wheel in "$work"/dist/*.whl; do
    say "dist/${wheel##*/}: $(du -h "$wheel" | cut -f 1)"
done

[ "$try" = yes ] || exit 0
say "testing the wheel in a fresh virtual environment"
python3 -m venv "$work/try"
"$work/try/bin/pip" install --quiet --disable-pip-version-check --no-index "$work"/dist/*.whl
cd "$work"
"$work/try/bin/embodied-r" --version
"$work/try/bin/embodied-r" doctor
"$work/try/bin/embodied-r" quickstart --output "$work/quickstart"
"$work/try/bin/python" -m embodied_r runs "$work/quickstart"
"$work/try/bin/python" -c 'import sys, embodied_r; print(sum(1 for _ in embodied_r.events(sys.argv[1])), "events")' \
    "$work/quickstart/train"
