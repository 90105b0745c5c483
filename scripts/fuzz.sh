#!/usr/bin/env bash
# Runs every fuzzer for so many seconds (60 unless told), each from its corpus below fixtures/fuzz; with
# more arguments only those of these names. What a run finds to be new goes to target/fuzz/corpus, what
# breaks something to target/fuzz/artifacts.
#
#   scripts/fuzz.sh [SECONDS] [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
targets=("$@")
tools=$PWD/target/fuzz/tools
export PATH="$tools/bin:$PATH"
# The sanitizers of the stable toolchain are there, and only nightly ones may be asked for them.
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR=$PWD/target/fuzz

if ! command -v cargo-fuzz >/dev/null; then
    if ! cargo install --quiet --locked --root "$tools" cargo-fuzz; then
        echo "fuzz.sh: cargo-fuzz cannot be had from the registry; tests/fuzz.rs fuzzes without it" >&2
        exit 3
    fi
fi
fuzz() { cargo fuzz "$1" --fuzz-dir scripts/fuzz "${@:2}"; }

fuzz build
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(fuzz list)
failed=()
for target in "${targets[@]}"; do
    corpus=target/fuzz/corpus/$target
    artifacts=target/fuzz/artifacts/$target
    mkdir -p "$corpus" "$artifacts"
    seeds=(fixtures/fuzz/"$target")
    case $target in
        junit) seeds+=(fixtures/junit/*/) ;;
        nextest) seeds+=(fixtures/nextest/*/) ;;
        vitest) seeds+=(fixtures/vitest/*/) ;;
    esac
    echo "== $target"
    fuzz run "$target" "$corpus" "${seeds[@]}" -- -max_total_time="$seconds" -max_len=16384 -timeout=10 \
        -malloc_limit_mb=256 -rss_limit_mb=1024 -artifact_prefix="$artifacts/" -print_final_stats=1 ||
        failed+=("$target")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "fuzz.sh: broken by an input: ${failed[*]}; see target/fuzz/artifacts" >&2
    exit 1
fi
