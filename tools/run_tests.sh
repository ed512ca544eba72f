#!/usr/bin/env bash
# Install what the tests need and run them, in parallel. Arguments go to pytest.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" tests

echo "== ruff"
ruff check .
ruff format --check .
echo "== pytest"
exec python -m pytest -n "${PYTEST_WORKERS:-auto}" --dist worksteal "$@"
