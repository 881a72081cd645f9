"""Break the code on purpose, one small change at a time, and count the changes that tests notice.

    python scripts/mutate.py                                    every change; takes hours
    python scripts/mutate.py --sample 200 --seed 1              200 a package, drawn at random
    python scripts/mutate.py --files _curves/pace.py            every change of a file
    python scripts/mutate.py --mutants 1f2e3d4c 5b6a7988        some, by the ids that are printed
    python scripts/mutate.py --files _curves/pace.py --list     only print them

A changed copy of the code is a mutant. It is killed if a test fails, or runs out of time. One that
survives shows a behaviour that no test holds; `mutate_survivors.toml` says why some may.

The tests run once with a trace, so that a mutant has to pass only those which run its lines, its
module's own first, then the quickest. Each mutant is a fork of one process that has collected all
tests, with the changed function put in the old one's place. Outside functions, a change needs a
fork that imports everything anew. A program that a child process runs is changed there, too. Linux
only.

Exit status: 0, or 1 if a mutant survived without an explanation.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import functools
import gc
import hashlib
import importlib
import itertools
import json
import math
import operator
import os
import random
import resource
import signal
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest
from hypothesis import Phase, settings

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/dist_sched"
PACKAGES = ("_curves", "_config", "_state", "_storage", "_optim")
FOLDERS = ("adapters", "cli", "config", "curves", "optim", "oracle", "peers", "state", "storage")
OTHERS = ("architecture", "benchmarks", "fuzz", "layout", "mutate", "packaging", "release", "site")
"""Tests that are of no file of the library."""
TESTS = [
    *(ROOT / "tests" / name for name in FOLDERS),
    *(path for path in sorted((ROOT / "tests").glob("test_*.py")) if path.stem[5:] not in OTHERS),
]
SURVIVORS = Path(__file__).with_name("mutate_survivors.toml")
CACHE = ROOT / "build/mutate.json"
PRELOADED = ("torch", "torch.distributed.checkpoint", "yaml")
"""Modules that take long to import, and that no mutant changes."""

PROGRAMS = {"_storage/index_items.py": "_storage/isolated.py"}
"""Programs that child processes run, and the file that starts each, by its `__file__`."""

LONGEST = 1.0
"""Seconds of a core, with the trace, above which a test is left out."""
MEMORY = 6 << 30
"""Bytes that a mutant may take in addition."""


# What is changed.

_SWAPS: list[tuple[type[ast.AST], type[ast.AST]]] = [
    *((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot)),
    *((ast.In, ast.NotIn), (ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.Div)),
    *((ast.BitOr, ast.BitAnd), (ast.LShift, ast.RShift), (ast.Break, ast.Continue)),
]
_SWAPPED = {one: other for pair in _SWAPS for one, other in (pair, pair[::-1])}
_SWAPPED |= dict.fromkeys((ast.FloorDiv, ast.Mod, ast.Pow), ast.Mult)
_SWAPPED_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_TEXT_CALLS = {"debug", "info", "warning", "error", "warn", "cast", "TypeVar", "NewType"}
_ORDERED = {"isinstance", "issubclass", "TypeVar", "cast"}
"""Calls whose arguments cannot be swapped without an error, or without an effect."""
_NO_LOGIC = {"annotation", "returns", "decorator_list", "bases", "type_params"}
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
_WIDTH = 80


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file."""

    path: str
    """File, relative to the source folder."""
    scope: str
    """Outermost function that the change is in, with its classes; empty outside functions."""
    start: int
    """First line of that function, as its code object has it; 0 for what an import evaluates."""
    lines: range
    """Lines of which a test must run one to be able to notice."""
    what: str
    """Text before and after, numbered where a scope has it several times."""
    tree: ast.Module
    parent: ast.AST
    field: str
    index: int | None
    new: ast.AST

    @property
    def key(self) -> str:
        """Return what names the change as long as its function and its text are the same."""
        return f"{self.scope or 'module'}: {self.what}"

    @property
    def id(self) -> str:
        """Return a short name for the command line."""
        return hashlib.sha256(f"{self.path} {self.key}".encode()).hexdigest()[:8]

    @property
    def package(self) -> str:
        """Return the folder that the file is in."""
        return str(Path(self.path).parent)

    @property
    def needs_import(self) -> bool:
        """Return whether the change can only be made while its module is imported."""
        return not self.start or "super()" in self.what

    def __str__(self) -> str:
        """Return id, place and change."""
        return f"{self.id} {self.path}:{self.lines.start} {self.key}"


def _replacements(node: ast.AST, field: str, parent: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in place of a node."""
    if isinstance(node, ast.stmt | ast.expr):
        yield from _other_statements(node) if isinstance(node, ast.stmt) else _other_values(node)
    if isinstance(node, ast.Constant) and not isinstance(parent, ast.Expr):
        yield from _other_constants(node.value)
    has_own = ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant
    if field in {"test", "ifs", "guard"} and not isinstance(node, has_own):
        yield _but(ast.UnaryOp(ast.Not(), ast.Constant(None)), operand=node)


def _other_statements(node: ast.stmt) -> Iterator[ast.AST]:
    match node:
        case ast.AugAssign(op=op) if type(op) in _SWAPPED:
            yield _but(node, op=_swapped(op))
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Delete() | ast.Expr(value=ast.Call() | ast.YieldFrom()):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Break() | ast.Continue():
            yield _swapped(node)


def _other_values(node: ast.expr) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield _but(node, ops=[*ops[:i], _swapped(op), *ops[i + 1 :]])
        case ast.BoolOp(op=op) | ast.BinOp(op=op) if type(op) in _SWAPPED:
            yield _but(node, op=_swapped(op))
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Call(func=ast.Name(id=name)) if name in _SWAPPED_CALLS:
            yield _but(node, func=ast.Name(_SWAPPED_CALLS[name], ast.Load()))
        case ast.Call(args=[first, second, *rest]) if ast.unparse(node.func) not in _ORDERED:
            yield _but(node, args=[second, first, *rest])


def _but(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _swapped(node: ast.AST) -> ast.AST:
    return _SWAPPED[type(node)]()


def _other_constants(value: object) -> Iterator[ast.AST]:
    """Yield another constant; a text of several words is a message, and stays."""
    match value:
        case bool():
            yield ast.Constant(not value)
        case int() | float():
            yield ast.Constant(value + 1)
        case str() if value and not any(map(str.isspace, value)):
            yield ast.Constant(f"XX{value}")


def _is_text(node: ast.AST) -> bool:
    """Return whether a node only says something, to users or to type checkers."""
    match node:
        case ast.JoinedStr() | ast.Raise() | ast.Assign(targets=[ast.Name("__all__")]):
            return True
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
            return name in _TEXT_CALLS
        case ast.If(test=ast.Name("TYPE_CHECKING")) | ast.Subscript(value=ast.Name("Literal")):
            return True
    return False


def mutants_of(source: Path, path: str) -> list[Mutant]:
    """Return every mutant of a file, in the order of its text."""
    tree = ast.parse((source / path).read_text())
    found: list[Mutant] = []
    numbers: Counter[tuple[str, str]] = Counter()

    def visit(node: ast.AST, classes: str, scope: tuple[str, int], lines: range) -> None:
        for field, index, child in _children(node):
            inside, function, of_child = classes, scope, lines
            if isinstance(child, ast.stmt):
                of_child = range(child.lineno, child.lineno + 1)
            for new in _replacements(child, field, node):
                what = f"{_text(child)} -> {_text(new)}"
                numbers[scope[0], what] += 1
                if numbers[scope[0], what] > 1:
                    what += f" #{numbers[scope[0], what]}"
                last = max(of_child.stop, getattr(child, "end_lineno", 0) + 1)
                needed = range(of_child.start, last)
                found.append(Mutant(path, *scope, needed, what, tree, node, field, index, new))
            if isinstance(child, ast.ClassDef) and not scope[0]:
                inside = f"{classes}{child.name}."
            elif isinstance(child, _FUNCTIONS) and not scope[0]:
                function = (classes + child.name, _start(child))
            elif isinstance(node, _FUNCTIONS) and field == "args" and scope[1] == _start(node):
                # An import evaluates the defaults; who runs the function may notice them.
                function, of_child = (scope[0], 0), range(node.lineno, (node.end_lineno or 0) + 1)
            if not _is_text(child):
                visit(child, inside, function, of_child)

    visit(tree, "", ("", 0), range(0))
    return found


def _start(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the first line of a function as its code object has it."""
    return min(each.lineno for each in (node, *node.decorator_list))


def _children(node: ast.AST) -> Iterator[tuple[str, int | None, ast.AST]]:
    for field, value in ast.iter_fields(node):
        if field in _NO_LOGIC or (field == "keywords" and isinstance(node, ast.ClassDef)):
            continue
        for index, each in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(each, ast.AST):
                yield field, index if isinstance(value, list) else None, each


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def compile_mutant(source: Path, mutant: Mutant) -> CodeType:
    """Return the code of a mutant's module; its tree stays changed."""
    if mutant.index is None:
        setattr(mutant.parent, mutant.field, mutant.new)
    else:
        getattr(mutant.parent, mutant.field)[mutant.index] = mutant.new
    tree = ast.fix_missing_locations(mutant.tree)
    return compile(tree, str(source / mutant.path), "exec", dont_inherit=True)


# Which tests run which lines.

Trace = dict[str, list[int]]
"""Lines that a test runs, by the file's path."""


@dataclass(frozen=True, slots=True)
class Test:
    """A test that passes, soon enough, on the code as it is."""

    id: str
    seconds: float
    trace: Trace

    def rank(self, path: str) -> tuple[bool, float, str]:
        """Return the place in a row: a module's own tests first, then the quickest."""
        package, _, module = path.removesuffix(".py").rpartition("/")
        is_own = f"{package.strip('_')}/test_{module}.py::" in self.id
        return not is_own, self.seconds, self.id


class Tracer:
    """What one test runs of the source; lines are looked at until all of a function have run."""

    def __init__(self, source: Path) -> None:
        self._prefix = f"{source}{os.sep}"
        # By identity, because codes are hashed anew, whole, at each look.
        self._left: dict[int, tuple[CodeType, set[int]]] = {}

    def __call__(self, frame: FrameType, _event: str, _argument: object) -> Any:
        """Return what is called at each line of a function, or None."""
        code = frame.f_code
        found = self._left.get(id(code))
        if found is None:
            found = code, _lines(code) if self._is_ours(code) else set()
            self._left[id(code)] = found
        return self._line if found[1] else None

    def trace(self) -> Trace:
        """Return the lines that have run."""
        lines = defaultdict[str, set[int]](set)
        for code, left in self._left.values():
            if self._is_ours(code):
                lines[code.co_filename.removeprefix(self._prefix)] |= _lines(code) - left
        return {path: sorted(each) for path, each in lines.items()}

    def _line(self, frame: FrameType, event: str, _argument: object) -> Any:
        left = self._left[id(frame.f_code)][1]
        if event == "line":
            left.discard(frame.f_lineno)
        return self._line if left else None

    def _is_ours(self, code: CodeType) -> bool:
        return code.co_filename.startswith(self._prefix)


def _lines(code: CodeType) -> set[int]:
    return {line for *_, line in code.co_lines() if line}


Items = dict[str, pytest.Item]


class Session:
    """Plugin of pytest that collects the tests, and leaves running them to a function."""

    def __init__(self, run: Callable[[Session, Items], object]) -> None:
        self._run = run
        self._failed = False

    def pytest_configure(self) -> None:
        """Make hypothesis draw the same examples each time, and not look for smaller ones."""
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile(
            "mutants", derandomize=True, deadline=None, phases=phases, max_examples=30
        )
        settings.load_profile("mutants")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run in place of pytest's loop, unless a file of tests cannot be imported."""
        if not session.testsfailed:
            self._run(self, {item.nodeid: item for item in session.items})
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note whether the test that runs was no success."""
        self._failed |= report.outcome != "passed"

    def passes(self, item: pytest.Item, following: pytest.Item | None = None) -> bool:
        """Return whether a test passes."""
        self._failed = False
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        return not self._failed

    def pass_all(self, items: Sequence[pytest.Item]) -> bool:
        """Return whether all tests pass; the first that does not is the last."""
        return all(map(self.passes, items, [*items[1:], None]))


def run_pytest(root: Path, files: Iterable[Path], run: Callable[[Session, Items], object]) -> int:
    """Collect tests, call a function with them, and return pytest's status."""
    options = ["-qq", "-s", "-p", "no:cacheprovider", "-m", "not distributed", f"--rootdir={root}"]
    options += [
        "--timeout=300",
        "-o",
        "tmp_path_retention_policy=none",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    ]
    return pytest.main([*options, *map(str, files)], plugins=[Session(run)])


def read_tests(source: Path, files: Sequence[Path], cache: Path) -> list[Test]:
    """Return the tests and what they run; only tests of files that have changed are run again."""
    others = [*source.rglob("*.py"), *(source.parents[1] / "tests").glob("[!t]*.py")]
    common = _digest("", others)
    digests = {str(path): _digest(common, [path]) for path in files}
    known = json.loads(cache.read_text()) if cache.exists() else {}
    stale = [path for path in files if known.get(str(path), [""])[0] != digests[str(path)]]

    def trace(session: Session, items: Items) -> None:
        # The rest of a long test runs without a trace. An exception here would end pytest.
        signal.signal(signal.SIGVTALRM, lambda *_: sys.settrace(None))
        cache.parent.mkdir(exist_ok=True)
        known.update({str(path): ["", []] for path in stale})
        # In the order of files, which pytest may mix for the sake of fixtures.
        in_order = sorted(items.values(), key=lambda item: str(item.path))
        for path, group in itertools.groupby(in_order, lambda item: str(item.path)):
            tests = [test for item in group if (test := _traced(source, session, item))]
            known[path] = [digests[path], tests]
            cache.write_text(json.dumps(known))  # after each file, so that a run can be continued

    if stale:
        print(f"tracing the tests of {len(stale)} files", flush=True)
        traced = _fork(functools.partial(run_pytest, source.parents[1], stale, trace))
        _, status = os.waitpid(traced, 0)
        known = json.loads(cache.read_text())
        if not all(known.get(str(path), [""])[0] for path in files):  # else all would survive
            sys.exit(f"the trace of the tests ended with {status}: run again to continue it")
    return [Test(*test) for path in files for test in known[str(path)][1]]


def _traced(source: Path, session: Session, item: pytest.Item) -> tuple[str, float, Trace] | None:
    """Return what a test runs, or None if it fails or takes long."""
    tracer, start = Tracer(source), time.process_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
    sys.settrace(tracer)
    passes = session.passes(item)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    sys.settrace(None)
    seconds = round(time.process_time() - start, 4)
    return (item.nodeid, seconds, tracer.trace()) if passes and seconds < LONGEST else None


def _digest(start: str, paths: Iterable[Path]) -> str:
    texts = (f"{path}\n{path.read_text()}" for path in sorted(paths))
    return hashlib.sha256("\n".join([start, *texts]).encode()).hexdigest()


class Coverage:
    """Which tests can notice a mutant."""

    def __init__(self, tests: Iterable[Test], budget: float) -> None:
        self._budget = budget
        self.by_line = defaultdict[tuple[str, int], list[Test]](list)
        for test in tests:
            for path, lines in test.trace.items():
                for line in (0, *lines):
                    self.by_line[path, line].append(test)

    def tests(self, mutant: Mutant) -> list[Test]:
        """Return tests, the module's own first and the quickest first, up to the budget."""
        lines = mutant.lines if mutant.scope and mutant.path not in PROGRAMS else [0]
        places = [(mutant.path, line) for line in lines] + [(PROGRAMS.get(mutant.path, ""), 0)]
        found = {test.id: test for place in places for test in self.by_line[place]}
        ranked = sorted(found.values(), key=operator.methodcaller("rank", mutant.path))
        spent = itertools.accumulate(test.seconds for test in ranked)
        return [
            test for test, seconds in zip(ranked, spent, strict=True) if seconds <= self._budget
        ]


# Running mutants.

SURVIVED, KILLED, UNUSABLE = range(3)
LATE = (-signal.SIGXCPU, -signal.SIGKILL)
Task = tuple[Mutant, float, Callable[[], int]]
"""A mutant, the seconds of a core that it may take, and what returns its outcome in a fork."""
WAITING = 20
"""How many times as long it may take on a clock, because it may wait, and the machine be busy."""


def _fork(task: Callable[[], int], seconds: float | None = None) -> int:
    """Start a task in a silent process with limits of memory and time; return the process's id."""
    if pid := os.fork():
        return pid
    outcome = KILLED
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        if seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), resource.RLIM_INFINITY))
        outcome = task()
    except Exception:  # noqa: BLE001 - ours, because pytest catches those of tests
        outcome = UNUSABLE
    finally:
        os._exit(outcome)


def run_tasks(tasks: Iterable[Task], jobs: int) -> Iterator[tuple[Mutant, int]]:
    """Yield the outcome of each mutant, as they end."""
    waiting, running = iter(tasks), dict[int, tuple[Mutant, float]]()
    while True:
        while len(running) < jobs and (task := next(waiting, None)):
            mutant, seconds, start = task
            running[_fork(start, seconds)] = mutant, time.monotonic() + WAITING * seconds
        if not running:
            return
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            yield running.pop(pid)[0], os.waitstatus_to_exitcode(status)
            continue
        for late in [pid for pid, (_, end) in running.items() if time.monotonic() > end]:
            os.killpg(late, signal.SIGKILL)
        time.sleep(0.005)


@dataclass(frozen=True, slots=True)
class Runner:
    """Makes mutants, and runs on each the tests that can notice it."""

    source: Path
    files: Sequence[Path]
    coverage: Coverage
    jobs: int
    report: Callable[[Mutant, int], None]

    def run(self, mutants: Sequence[Mutant]) -> None:
        """Report the outcome of each mutant."""
        for mutant in mutants:
            if not self.coverage.tests(mutant):
                self.report(mutant, SURVIVED)
        covered = [mutant for mutant in mutants if self.coverage.tests(mutant)]
        self._run([each for each in covered if each.needs_import], self._import)
        if any(not each.needs_import for each in covered):
            self._import_all()
            patch = functools.partial(self._patch_all, [m for m in covered if not m.needs_import])
            run_pytest(self.source.parents[1], self.files, patch)

    def _run(self, mutants: Iterable[Mutant], start: Callable[[Mutant, list[Test]], int]) -> None:
        def task(mutant: Mutant) -> Task:
            tests = self.coverage.tests(mutant)
            limit = 20 + 5 * sum(test.seconds for test in tests)
            return mutant, limit, functools.partial(start, mutant, tests)

        for mutant, outcome in run_tasks(map(task, mutants), self.jobs):
            self.report(mutant, outcome)

    def _import(self, mutant: Mutant, tests: list[Test]) -> int:
        """Return the outcome of a mutant that is made while its module is imported."""
        code, path, passed = (
            compile_mutant(self.source, mutant),
            str(self.source / mutant.path),
            False,
        )
        original = SourceFileLoader.get_code

        def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
            return code if loader.path == path else original(loader, name)

        def run(session: Session, items: Items) -> None:
            nonlocal passed
            _offer_program(mutant)
            passed = session.pass_all(_chosen(items, tests))

        SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]
        files = {self.source.parents[1] / test.id.partition("::")[0] for test in tests}
        run_pytest(self.source.parents[1], sorted(files), run)
        return SURVIVED if passed else KILLED

    def _import_all(self) -> None:
        """Import the modules that tests import late, so that their functions are there."""
        for path in sorted({path for path, line in self.coverage.by_line}):
            parts = Path(self.source.name, path).with_suffix("").parts
            importlib.import_module(".".join(parts).removesuffix(".__init__"))

    def _patch_all(self, mutants: Sequence[Mutant], session: Session, items: Items) -> None:
        prefix, caches = f"{self.source}{os.sep}", list[Any]()
        functions = defaultdict[tuple[str, str, int], list[FunctionType]](list)
        for each in gc.get_objects():
            if type(each) is FunctionType and each.__code__.co_filename.startswith(prefix):
                functions[_place(each.__code__)].append(each)
            elif type(each) is functools._lru_cache_wrapper:  # noqa: SLF001
                caches.append(each)
        gc.freeze()  # so that forks do not copy what is collected

        def patch(mutant: Mutant, tests: list[Test]) -> int:
            place = (str(self.source / mutant.path), mutant.scope, mutant.start)
            codes = [
                code
                for code in _codes(compile_mutant(self.source, mutant))
                if _place(code) == place
            ]
            if not codes or not functions[place]:
                return UNUSABLE
            for function in functions[place]:
                function.__code__ = codes[0]
            for each in caches:
                each.cache_clear()
            _offer_program(mutant)
            return KILLED - session.pass_all(_chosen(items, tests))

        self._run(mutants, patch)


def _offer_program(mutant: Mutant) -> None:
    """Make child processes run the mutant, from a file in memory, if its file is a program."""
    name = ".".join((SOURCE.name, *Path(mutant.path).with_suffix("").parts))
    if mutant.path in PROGRAMS and name in sys.modules:
        file = os.memfd_create("mutant")
        os.write(file, ast.unparse(mutant.tree).encode())
        sys.modules[name].__file__ = f"/proc/{os.getpid()}/fd/{file}"


def _chosen(items: Items, tests: Iterable[Test]) -> list[pytest.Item]:
    """Return the items of tests; an id with an address is another one each time."""
    return [items[test.id] for test in tests if test.id in items]


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _place(code: CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_qualname, code.co_firstlineno


# The command line.


class Report:
    """Prints survivors at once, and the scores at the end."""

    def __init__(self, explanations: dict[str, dict[str, str]]) -> None:
        self._explanations = explanations
        self._counts = defaultdict[str, Counter[str]](Counter)
        self.num_unexplained = 0

    def __call__(self, mutant: Mutant, outcome: int) -> None:
        """Count an outcome."""
        names = {SURVIVED: "survived", UNUSABLE: "unusable"} | dict.fromkeys(LATE, "late")
        name = names.get(outcome, "killed")
        counts = self._counts[mutant.package]
        counts[name] += 1
        counts["all"] += 1
        if name in {"survived", "unusable"}:
            reason = self._explanations.get(mutant.path, {}).get(mutant.key)
            counts["explained"] += reason is not None
            self.num_unexplained += reason is None
            print(f"{name} {mutant}{f'  # {reason}' if reason else ''}", flush=True)

    def print_scores(self) -> None:
        """Print the share of killed mutants of each package."""
        print("package mutants killed late survived explained unusable score")
        for package, counts in sorted(self._counts.items()):
            columns = ("all", "killed", "late", "survived", "explained", "unusable")
            share = (counts["killed"] + counts["late"]) / counts["all"]
            print(package, *(counts[column] for column in columns), f"{share:.1%}")


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--packages", nargs="+", default=PACKAGES)
    parser.add_argument("--files", nargs="+", help="files below the source, instead of packages")
    parser.add_argument("--mutants", nargs="+", help="ids, instead of all mutants")
    parser.add_argument("--sample", type=int, help="how many of a package are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--budget", type=float, default=8, help="seconds of tests for a mutant")
    parser.add_argument("--list", action="store_true", help="print mutants, run nothing")
    parser.add_argument("--source", type=_absolute, default=SOURCE)
    parser.add_argument("--tests", type=_absolute, nargs="+", default=TESTS)
    parser.add_argument("--survivors", type=Path, default=SURVIVORS)
    parser.add_argument("--cache", type=Path, default=CACHE)
    return parser.parse_args(arguments)


def _absolute(path: str) -> Path:
    return Path(path).resolve()


def choose(options: argparse.Namespace) -> list[Mutant]:
    """Return the mutants that the options ask for."""
    paths = options.files or [
        str(path.relative_to(options.source))
        for package in options.packages
        for path in sorted((options.source / package).glob("*.py"))
    ]
    by_package = defaultdict[str, list[Mutant]](list)
    for path in paths:
        for mutant in mutants_of(options.source, path):
            if not options.mutants or mutant.id in options.mutants:
                by_package[mutant.package].append(mutant)
    if options.sample is not None:
        for package, mutants in by_package.items():
            draw = random.Random(f"{options.seed} {package}")  # noqa: S311 - no secret
            mutants.sort(key=lambda mutant: mutant.id)
            mutants[:] = draw.sample(mutants, min(options.sample, len(mutants)))
    return [mutant for mutants in by_package.values() for mutant in mutants]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for, and return the exit status."""
    options = read_options(arguments)
    mutants = choose(options)
    if options.list:
        print(*mutants, sep="\n")
        return 0
    sys.path.insert(0, str(options.source.parent))
    for name in PRELOADED if options.source == SOURCE else ():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    files = [file for path in options.tests for file in sorted(path.rglob("test_*.py")) or [path]]
    tests = read_tests(options.source, files, options.cache)
    explained = tomllib.loads(options.survivors.read_text()) if options.survivors.exists() else {}
    report = Report(explained)
    coverage = Coverage(tests, options.budget)
    Runner(options.source, files, coverage, options.jobs, report).run(mutants)
    report.print_scores()
    return int(report.num_unexplained > 0)


if __name__ == "__main__":
    sys.exit(main())
