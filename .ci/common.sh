# What .ci/run and .ci/long share; sourced by them.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
exec </dev/null

# One default, whatever the machine has set: Keras's own settings and TensorFlow as the backend.
unset KERAS_BACKEND PYTHONPATH VIRTUAL_ENV
export CI=true KERAS_HOME="$work/keras" TF_CPP_MIN_LOG_LEVEL=3 OMP_NUM_THREADS=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1

# Which tests run where (marks are explained in pyproject.toml).
on_another_backend="(slow or not slow) and not backend_free and not browser"
at_lowest_versions="not browser and (depends_on_version or not (slow or backend_free))"

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
    close_section
    printf '\n===== the time of each section =====\n'
    printf '%s\n' "${sections[@]}" "$(clock $SECONDS)  in all"
    rm -rf "$work"
}
trap finish EXIT

# A fresh copy of the checkout, without what an earlier session built in it.
copy_tree() {
    mkdir "$1"
    tar -C "$root" -cf - --exclude=./.git --exclude=./.venv --exclude=./build --exclude=./dist \
        --exclude=./runs --exclude='*.egg-info' --exclude=__pycache__ --exclude='.*_cache' . |
        tar -C "$1" -xf -
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
