# Sourced by quickstart.sh and run_tests.sh: go to the repository root, and make a Python environment with the tested
# packages and fasternet_mm in it: the active one, or .venv. Repeats nothing that is done. Usage: . setup_env.sh [EXTRA]
# With EXTRA `oldest`, the environment is .venv-oldest, and the packages are those of requirements/oldest.txt alone.
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

right_python() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})' 2>/dev/null; }

env_dir=${VIRTUAL_ENV:-}
# conda's base is active in every shell of many people; it is nobody's choice for a project
[ -n "$env_dir" ] || [ "${CONDA_DEFAULT_ENV:-base}" = base ] || env_dir=${CONDA_PREFIX:-}
[ "$1" != oldest ] || env_dir=  # a set for one environment of its own
if [ -n "$env_dir" ]; then
    echo "== using the active environment $env_dir"
    right_python python || { echo "error: Python 3.11 or 3.12 is needed, and $env_dir has $(python --version)" >&2; exit 1; }
else
    env_dir=$PWD/.venv$([ "$1" != oldest ] || echo -oldest)
    if [ ! -x "$env_dir/bin/pip" ]; then
        for python in "${PYTHON:-}" python3.12 python3.11 python3; do
            [ -n "$python" ] && right_python "$python" && break
            python=
        done
        [ -n "$python" ] || { echo "error: Python 3.11 or 3.12 is needed; set PYTHON=/path/to/python" >&2; exit 1; }
        echo "== making the virtual environment $env_dir with $("$python" --version)"
        "$python" -m venv "$env_dir" || { echo "error: $python -m venv failed (Debian: apt install python3-venv)" >&2; exit 1; }
    fi
    export PATH="$env_dir/bin:$PATH" VIRTUAL_ENV="$env_dir"
fi

requirements="requirements/tested.txt${1:+ requirements/$1.txt}"
[ "$1" != oldest ] || requirements=requirements/oldest.txt
want=$(cat $requirements requirements/mmcv-lite.txt setup.py pyproject.toml fasternet_mm/version.py | cksum)
done_file="$env_dir/.fasternet_mm${1:+-$1}"
if [ "$(cat "$done_file" 2>/dev/null)" != "$want $PWD" ]; then
    echo "== installing the packages of $requirements into $env_dir (two minutes on a fast line; PyTorch with CUDA is 3 GB)"
    lite=requirements/mmcv-lite.txt
    if python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("mmcv") is None)'; then
        echo "== mmcv is there already and is left as it is"
        lite=
    fi
    files=$(for file in $requirements $lite; do printf -- '-r %s ' "$file"; done)
    python -m pip install --disable-pip-version-check --progress-bar on $files
    python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
    echo "$want $PWD" >"$done_file"
else
    echo "== packages are installed already in $env_dir"
fi
