# Sourced by quickstart.sh and run_tests.sh: go to the repository root, and make a Python environment with the tested
# packages and fasternet_mm in it: the active one, or .venv. Repeats nothing that is done. Usage: . setup_env.sh [EXTRA]
# With EXTRA `oldest`, the environment is .venv-oldest, and the packages are those of requirements/oldest.txt alone.
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

die() { echo "error: $*" >&2; exit 1; }
version_of() { "$1" -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }
right_version() { [[ $1 == "Python 3.11."* || $1 == "Python 3.12."* ]]; }

env_dir=${VIRTUAL_ENV:-} mend="deactivate it (unset VIRTUAL_ENV), or make it anew"
# conda's base is active in every shell of many people; it is nobody's choice for a project
[ -n "$env_dir" ] || [ "${CONDA_DEFAULT_ENV:-base}" = base ] || env_dir=${CONDA_PREFIX:-}
[ "$1" != oldest ] || env_dir=  # a set for one environment of its own
if [ -n "$env_dir" ]; then
    echo "== using the active environment $env_dir"
else
    env_dir=$PWD/.venv$([ "$1" != oldest ] || echo -oldest) mend="remove it and run this again"
    if [ ! -e "$env_dir/bin/pip" ]; then
        for python in ${PYTHON:+"$PYTHON"} python3.12 python3.11 python3; do
            version=$(version_of "$python") && right_version "$version" && break
            [ -z "${PYTHON:-}" ] || die "Python 3.11 or 3.12 is needed, and PYTHON=$PYTHON is ${version:-none that runs}"
            python=
        done
        [ -n "$python" ] || die "Python 3.11 or 3.12 is needed; set PYTHON=/path/to/python"
        mkdir -p "$env_dir" 2>/dev/null && [ -w "$env_dir" ] || die "cannot write to $env_dir"
        echo "== making the virtual environment $env_dir with $version"
        "$python" -m venv "$env_dir" || die "$python -m venv failed (Debian: apt install python3-venv); remove $env_dir"
    fi
fi
# What follows installs packages. An environment's python can be a link to nothing, or to the system's: it says itself
# where it installs to.
version=$(version_of "$env_dir/bin/python") || die "$env_dir has no python that runs; $mend"
right_version "$version" || die "Python 3.11 or 3.12 is needed, and $env_dir has $version; $mend"
"$env_dir/bin/python" -c 'import os, sys; sys.exit(os.path.realpath(sys.prefix) != os.path.realpath(sys.argv[1]))' \
    "$env_dir" || die "$env_dir/bin/python is not that environment's own; $mend"
export PATH="$env_dir/bin:$PATH" VIRTUAL_ENV="$env_dir"

requirements="requirements/tested.txt${1:+ requirements/$1.txt}"
[ "$1" != oldest ] || requirements=requirements/oldest.txt
want=$(cat $requirements requirements/mmcv-lite.txt setup.py pyproject.toml fasternet_mm/version.py | cksum)
done_file="$env_dir/.fasternet_mm${1:+-$1}"
if [ "$(cat "$done_file" 2>/dev/null)" != "$want $PWD" ]; then
    for folder in "$env_dir" "$PWD"; do
        [ -w "$folder" ] || die "cannot write to $folder"
    done
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
