# Sourced by the scripts beside this folder: sets `python` to a Python from 3.11 to 3.14, or ends the script.

# vLLM's packages are published for these versions and no others.
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        "$PYTHON" -c "$supported" 2>/dev/null && { python=$PYTHON; return; }
        version=$("$PYTHON" -c 'import sys; print("Python", sys.version.split()[0])' 2>/dev/null) ||
            version='not a Python that runs'
        echo "error: PYTHON=$PYTHON is $version; Groundserve needs Python 3.11 to 3.14: name one in PYTHON" >&2
        exit 1
    fi
    for python in python3.11 python3.12 python3.13 python3.14 python3 python; do
        # A name may be a shim that refuses to run, so being on the PATH is not enough.
        "$python" -c "$supported" 2>/dev/null && return
    done
    echo "error: no Python 3.11 to 3.14 on the PATH: install one, or name it in PYTHON" >&2
    exit 1
}

find_python
