"""
Tests of how the rooms of the house lie: which module may import which.

A lower module knows nothing of a higher one, so that it can be read, tested and replaced without it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import darner

from .servers import run

PACKAGE = Path(darner.__file__).parent

LAYERS = (
    "errors",
    "consumed",
    "items",
    "stats",
    "interfaces",
    "wire",
    "status control text",
    "units",
    "policies",
    "settings",
    "options",
    "passwords limits",
    "access",
    "timers processors tls",
    "records mapped crc32c",
    "leveldb batch",
    "tails",
    "directory",
    "before",
    "salvage survey",
    "inspection",
    "store memory turn",
    "repair",
    "head space retries delays seen",
    "volatile",
    "contents",
    "ledger",
    "bounds",
    "fifo fanout",
    "reclaim expiry",
    "streams",
    "queues outbox",
    "requeue waits opens",
    "session calls",
    "guard framing",
    "protocol connection",
    "listen textport",
    "service",
    "tap",
    "plugin",
    "__main__ load",
    "crowd",
    "bench",
)
"""Lower ones first; a module may import those of the layers below its own."""

PLACE = {module: place for place, layer in enumerate(LAYERS) for module in layer.split()}

REACTOR = ("service", "tap")
"""Those that may fall back to the global reactor, and only when one of their functions is called."""


def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_bytes())


def imported(node: ast.AST) -> Iterator[str]:
    """Every dotted name that an import statement may mean."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = ".".join(["darner"] * bool(node.level) + [node.module] * bool(node.module))
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def imports(tree: ast.AST) -> set[str]:
    """Every dotted name that is imported anywhere in a tree."""
    return {name for node in ast.walk(tree) for name in imported(node)}


def imports_at_once(tree: ast.AST) -> set[str]:
    """Every dotted name that is imported by importing the module: outside functions."""
    if isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        return set()
    return set(imported(tree)).union(*(imports_at_once(child) for child in ast.iter_child_nodes(tree)))


class LayoutTests(SynchronousTestCase):
    """Imports run one way."""

    def setUp(self) -> None:
        self.modules = {path.stem: tree(path.stem) for path in PACKAGE.glob("*.py") if path.stem != "__init__"}

    def test_every_module_has_its_place(self) -> None:
        self.assertEqual(sorted(set(self.modules) - set(PLACE)), [])

    def test_imports_run_one_way(self) -> None:
        backwards = [
            f"{module} imports {name}"
            for module, tree in self.modules.items()
            for name in imports(tree)
            for parts in [name.split(".")]
            if parts[0] == "darner" and len(parts) > 1 and PLACE.get(parts[1], -1) >= PLACE.get(module, -1)
        ]
        self.assertEqual(backwards, [])

    def test_package_imports_nothing(self) -> None:
        """So that the plugin, which is always loaded, costs nothing."""
        self.assertEqual({name for name in imports(tree("__init__")) if name.startswith("darner")}, set())

    def test_only_the_store_knows_leveldb(self) -> None:
        self.assertEqual([module for module, tree in self.modules.items() if "plyvel" in imports(tree)], ["store"])

    def test_global_reactor(self) -> None:
        """Reactor and clock come in through constructors; importing a module installs no reactor."""
        reactor = "twisted.internet.reactor"
        using = {module for module, tree in self.modules.items() if reactor in imports(tree)}
        self.assertLessEqual(using, set(REACTOR))
        at_once = {module for module, tree in self.modules.items() if reactor in imports_at_once(tree)}
        self.assertEqual(at_once, set())

    def test_command_line(self) -> None:
        """It is read before it is known whether TLS is needed, which comes with any of Twisted's transports."""
        program = "import sys, darner.plugin; from twisted.scripts import twistd; print(*sys.modules)"
        loaded = set(run(sys.executable, "-c", program, cwd=Path()).stdout.split())
        self.assertIn("darner.options", loaded)
        self.assertEqual(loaded & {"twisted.internet.tcp", "twisted.internet.endpoints", "OpenSSL"}, set())

    def test_no_twisted(self) -> None:
        """The wire format and the plain data know nothing of Twisted."""
        for module in ("errors", "consumed", "items", "wire", "text", "stats", "records"):
            self.assertEqual([name for name in imports(self.modules[module]) if name.startswith("twisted")], [])


class CompiledTests(SynchronousTestCase):
    """What is compiled keeps to the rules that `docs/design.rst` has for it."""

    def setUp(self) -> None:
        (assigned,) = (
            node.value
            for node in ast.parse((PACKAGE.parent / "setup.py").read_bytes()).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMPILED"
        )
        self.classes = [
            (module, node)
            for module in ast.literal_eval(assigned)
            for node in tree(module).body
            if isinstance(node, ast.ClassDef)
        ]

    def test_decorators(self) -> None:
        """Any other has a class be none of its own."""
        for module, node in self.classes:
            for decorator in node.decorator_list:
                self.assertIn(ast.unparse(decorator), ("dataclass", "dataclass(frozen=True)"), f"{module}.{node.name}")

    def test_bases(self) -> None:
        known = {node.name for _, node in self.classes} | {"Protocol", "NamedTuple", "dict[bytes, _Batch]"}
        known.add("QueueFactory")  # Twisted's, of which there is one, and not one for each client or request
        for module, node in self.classes:
            self.assertLessEqual({ast.unparse(base) for base in node.bases}, known, f"{module}.{node.name}")

    def test_logs(self) -> None:
        """A log that is not of the class does not know whose it is."""
        for module, node in self.classes:
            for statement in node.body:
                self.assertNotIn("_log = ", ast.unparse(statement).partition("\n")[0], f"{module}.{node.name}")


class ImportsTests(SynchronousTestCase):
    """The tests above see every way to import."""

    def test_ways(self) -> None:
        for statement, name in (
            ("import darner.store", "darner.store"),
            ("from darner.store import LevelStore", "darner.store"),
            ("from darner import wire, store", "darner.store"),
            ("from . import store", "darner.store"),
            ("from .store import LevelStore", "darner.store"),
            ("if TYPE_CHECKING:\n from darner.store import LevelStore", "darner.store"),
            ("from twisted.internet import reactor", "twisted.internet.reactor"),
        ):
            self.assertIn(name, imports(ast.parse(statement)), statement)
            self.assertIn(name, imports_at_once(ast.parse(statement)), statement)

    def test_in_a_function(self) -> None:
        for function in ("def f():\n import plyvel", "class C:\n async def f(self):\n  import plyvel"):
            self.assertEqual(imports(ast.parse(function)), {"plyvel"})
            self.assertEqual(imports_at_once(ast.parse(function)), set())
