# Sourced by scripts/demo and scripts/test: one way to make, fill and reuse a virtual environment.

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '%s\n' "$*" >&2; }

# Print the newest-enough Python: $PYTHON if set, else the version the pins were made with, else python3.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    say "error: Python 3.11 or newer is needed; name one with PYTHON=/path/to/python"
    return 2
}

# use_venv DIR: create DIR if it is missing, and activate it (ninja and deepspeed are found on PATH).
use_venv() {
    local python
    if [ ! -x "$1/bin/pip" ]; then
        python=$(find_python)
        say "creating $1 with $("$python" --version)"
        "$python" -m venv "$1"
    fi
    # shellcheck disable=SC1091
    . "$1/bin/activate"
}

# is_filled DIR: whether DIR was filled to the end from the files that say what to install.
is_filled() { [ "$(cat "$1/.filled-from" 2>/dev/null)" = "$(fill_key)" ]; }
mark_filled() { fill_key >"$1/.filled-from"; }
fill_key() { cat setup.cfg constraints.txt scripts/venv.sh "scripts/${0##*/}" | cksum; }

# install ARGS...: pip with the project's pins; silent unless something fails (-qq hides mere warnings).
install() { python -m pip install -qq --constraint constraints.txt "$@"; }
