#!/usr/bin/env bash
# Install what the tests need and run them, in parallel. With --oldest: in .venv-oldest, with the oldest packages that
# setup.py admits, the tests of models, operators, checkpoints and deploy. Other arguments go to pytest.
set -euo pipefail
if [ "${1:-}" = --oldest ]; then
    shift
    . "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" oldest
    set -- tests/{models,ops,compat,checkpoint,deploy} "$@"
else
    . "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" tests
    echo "== ruff"
    ruff check .
    ruff format --check .
fi
echo "== pytest"
exec python -m pytest -n "${PYTEST_WORKERS:-auto}" --dist worksteal "$@"
