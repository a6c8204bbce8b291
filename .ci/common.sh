# What .ci/run and .ci/long share; sourced by them.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
exec </dev/null

# One default, whatever the machine has set: Keras's own settings and TensorFlow as the backend.
unset KERAS_BACKEND PYTHONPATH VIRTUAL_ENV PYTEST_ADDOPTS XLA_FLAGS JAX_COMPILATION_CACHE_DIR
export CI=true KERAS_HOME="$work/keras" TF_CPP_MIN_LOG_LEVEL=3 OMP_NUM_THREADS=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1

# What the other backends need: the CPU build of torch, the JAX whose flags tests/conftest.py sets,
# and the peer that a test compares with.
other_backends="torch==2.13.0 jax==0.10.2 optax"

sections=()
started=$SECONDS

# section TITLE: begins a section; the table at the end has the time of each.
section() {
    close_section
    title=$1
    started=$SECONDS
    printf '\n===== %s  %s =====\n' "$(clock $SECONDS)" "$title"
}

close_section() {
    if [[ -n ${title:-} ]]; then
        sections+=("$(clock $((SECONDS - started)))  $title")
    fi
    title=
}

clock() { printf '%2d:%02d' $(($1 / 60)) $(($1 % 60)); }

finish() {
    local status=$? last=${title:-}
    close_section
    printf '\n===== the time of each section =====\n'
    printf '%s\n' "${sections[@]}" "$(clock $SECONDS)  in all"
    rm -rf "$work"
    if [[ $status == 0 ]]; then echo "all passed"; else echo "FAILED in: $last"; fi
}
trap finish EXIT

# A fresh copy of the checkout, without what an earlier session built in it.
copy_tree() {
    mkdir "$1"
    tar -C "$root" -cf - --exclude-from="$root/.ci/made" . | tar -C "$1" -xf -
}

# The one line of README.md that sets up a fresh environment and ends with the given words.
readme_command() {
    local found
    found=$(grep -E "^python3 -m venv \.venv && .*$1\$" "$root/README.md") || true
    if [[ -z $found || $found == *$'\n'* ]]; then
        echo "README.md must have one line 'python3 -m venv .venv && … $1', found: '$found'" >&2
        return 1
    fi
    echo "$found"
}

# The requirements of an extra of setup.cfg, one a line.
extra() { sed -n "/^$1 =/,/^[^ ]/s/^ \+//p" "$root/setup.cfg"; }

# newest_keras VENV: the newest Keras that the registry has, "keras==…" or "keras-nightly==…"; nothing
# unless it is newer than the one whose sources were read for _backend/keras_private/.
newest_keras() {
    local read_in name
    read_in=$(sed -n 's/^READ_IN = "\(.*\)".*/\1/p' "$root/combined_losses/_backend/keras_private/__init__.py")
    for name in keras keras-nightly; do
        PIP_QUIET=0 timeout 30 "$1/bin/pip" index versions --pre "$name" 2>/dev/null | sed -n '1s/ (\(.*\))/==\1/p'
    done | "$1/bin/python" -c '
import sys
from packaging.version import Version

found = {Version(line.split("==")[1]): line.strip() for line in sys.stdin}
newest = max(found, default=Version("0"))
print(found[newest] if newest > Version(sys.argv[1]) else "")' "$read_in"
}

# try_newest_keras VENV KERAS TESTS...: runs tests with another Keras, and all else from VENV; in at
# most 5 minutes. Called in a condition, where bash does not stop at errors: hence each `&&`.
try_newest_keras() {
    local venv=$1 keras=$2
    shift 2
    python3 -m venv "$work/newest" &&
        echo "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
            >"$(echo "$work"/newest/lib/python3*/site-packages)/borrowed.pth" &&
        timeout 60 "$work/newest/bin/pip" install "$keras" &&
        timeout 220 "$work/newest/bin/python" -m pytest --at-most 1 -m "not slow and not browser" "$@"
}

need_chromium() {
    if ! command -v chromium || ! command -v chromedriver; then
        local as_root
        as_root=$([[ $(id -u) == 0 ]] || echo sudo)
        $as_root apt-get update -qq
        DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends \
            chromium chromium-driver >/dev/null
    fi
    chromium --version
}
