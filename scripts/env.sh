# shellcheck shell=bash
# To be sourced. Defines
#   make_environment EXTRA…   .venv in the repository root, with the project and these extras in it
#   install_upstream          the two released packages that tests and benchmarks compare with
#   make_frameworks_environment   .venv-frameworks, with the frameworks that tests/frameworks runs
#   make_lowest_environment   .venv-lowest, with the lowest versions that pyproject.toml allows
#   make_newest_environment   .venv-newest, with the newest versions that there are
# PYTHON is the interpreter to build on, python3 by default.

_repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
_venv="$_repository/.venv"
_constraints="constraints.txt"

_say() { printf '== %s\n' "$*" >&2; }

# PIP_USER=0, because pip refuses to install here where a user's settings have user = true.
_pip() { PIP_USER=0 "$_venv/bin/python" -m pip --disable-pip-version-check "$@"; }

_install() { _pip install --constraint "$_repository/$_constraints" "$@"; }

_check_python() {
  if ! command -v "$1" >/dev/null; then
    _say "no $1 here: install Python 3.11 or newer, or set PYTHON to one"
  elif ! "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    _say "$1 is $("$1" -V 2>&1), and Python 3.11 or newer is needed: set PYTHON to one"
  elif ! "$1" -c 'import ensurepip, venv' 2>/dev/null; then
    _say "$1 cannot make environments: install its venv package (Debian, Ubuntu: python3-venv)"
  else
    return 0
  fi
  return 1
}

# An environment that was moved, or made by another Python, cannot be used.
_base_of() { echo "$_repository" && "$1" -c 'import sys; print(sys.version)'; }

_inputs() { (cd "$_repository" && cat pyproject.toml "$_constraints" scripts/env.sh && echo "$@"); }

_has_content() { [[ -f "$1" && "$(cat "$1")" == "$2" ]]; }

# The file "base" is removed while anything is installed: without it an installation was interrupted,
# and the environment is made again.
_begin_change() { rm -f "$_venv/base"; }
_end_change() { _base_of "$_venv/bin/python" >"$_venv/base"; }

_make_venv() {
  local python="${PYTHON:-python3}"
  _check_python "$python" || return
  if _has_content "$_venv/base" "$(_base_of "$python")" && "$_venv/bin/python" -c ''; then
    return 0
  fi
  _say "making $_venv with $("$python" -V)"
  rm -rf "$_venv" && "$python" -m venv "$_venv"
}

# Without dependencies: the two files that are used need only what the extra "test" installs.
install_upstream() {
  _begin_change
  _install --quiet --no-deps megatron-core nemo-automodel || return
  _end_change
}

_build_requirements() {
  (cd "$_repository" && "$_venv/bin/python" -c \
    'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])')
}

_install_builder() {
  _begin_change
  rm -f "$_venv/inputs"
  # shellcheck disable=SC2046 # one word a requirement
  _install --quiet $(_build_requirements) || return
  _end_change
}

_build_wheel() {
  rm -rf "$_venv/wheel"
  _pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$_venv/wheel" "$_repository"
}

_install_dependencies() {
  local IFS=,
  _say "installing what the project needs; PyTorch is a large download"
  _install "$(echo "$_venv"/wheel/*.whl)[$*]"
}

_install_wheel() { _pip install --quiet --no-deps --force-reinstall "$_venv"/wheel/*.whl; }

# Installs a wheel, as users do, and builds it at each call, so that it is never out of date.
make_environment() {
  local wanted
  wanted="$(_inputs "$@")"
  unset PYTHONHOME PYTHONPATH # or other files might be imported than the installed ones
  _make_venv || return
  if _has_content "$_venv/inputs" "$wanted"; then
    _build_wheel && _begin_change && _install_wheel || return
  else
    _install_builder && _build_wheel && _begin_change || return
    _install_dependencies "$@" && _install_wheel || return
    echo "$wanted" >"$_venv/inputs"
  fi
  _end_change
  export VIRTUAL_ENV="$_venv" PATH="$_venv/bin:$PATH"
}

# An environment of its own, because the frameworks bring many packages and want older versions of
# some, and the ordinary tests must need none of it.
make_frameworks_environment() {
  local _venv="$_repository/.venv-frameworks" _constraints="constraints-frameworks.txt"
  make_environment frameworks && install_upstream
}

# The oracle stays the same, whatever else is installed.
_upstream_pins() { grep -E '^(megatron-core|nemo-automodel)==' "$_repository/constraints.txt"; }

make_lowest_environment() {
  local _venv="$_repository/.venv-lowest" _constraints="build/constraints-lowest.txt"
  local PYTHON="${PYTHON:-python3.11}"
  _check_python "$PYTHON" && mkdir -p "$_repository/build" || return
  local pins="$_repository/build/lowest.txt"
  "$PYTHON" "$_repository/scripts/lowest_versions.py" >"$pins" || return
  { _upstream_pins && grep '^torch==' "$pins"; } >"$_repository/$_constraints" || return
  make_environment test && install_upstream || return
  # Without dependencies: what else the tests need asks for newer ones of some.
  _pip install --quiet --no-deps --requirement "$pins"
}

# The date makes pip look for newer versions once a day.
make_newest_environment() {
  local _venv="$_repository/.venv-newest" _constraints="build/constraints-newest.txt"
  local PYTHON="${PYTHON:-$(_newest_python)}"
  mkdir -p "$_repository/build" || return
  { _upstream_pins && date '+# the newest versions of %F'; } >"$_repository/$_constraints" || return
  PIP_UPGRADE=1 PIP_UPGRADE_STRATEGY=eager make_environment test && install_upstream
}

_newest_python() {
  local minor
  for minor in 14 13 12 11; do
    if command -v "python3.$minor" && _check_python "python3.$minor" 2>/dev/null; then return; fi
  done
  echo python3
}
