"""
Tests of the layout: which module may import which.

A lower module does not import a higher one, so that it can be read, tested and replaced without it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path

from twisted.trial.unittest import SynchronousTestCase

import darner
from darner.config.settings import Rights
from darner.front import commands  # noqa: F401  (the commands register themselves)
from darner.front.access import Grant
from darner.front.session import PERFORMERS
from darner.queues.front_end import IQueues
from darner.values import requests
from test.harness import Server
from test.servers import run

PACKAGE = Path(darner.__file__).parent

LAYERS = (
    "errors", "values", "client", "interfaces", "config", "net", "store", "rescue", "migrate", "queues", "cluster",
    "front", "web", "service", "testing", "cli", "commands", "__main__",
)  # fmt: skip
"""The packages and the modules beside them, lower ones first; each may import those before it, and itself."""

MOST_LINES = 400
"""Of one module."""

REACTOR = ("service", "cli.server")
"""Those that may fall back to the global reactor, and only when one of their functions is called."""

PLAIN = ("errors", "values", "store.records", "front.memcache", "front.memcache_requests", "front.kestrel")
"""Those that know nothing of Twisted."""


def name_of(path: Path) -> str:
    """@return: a module's name below the package, as in C{store.records}."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def modules() -> dict[str, ast.Module]:
    """@return: every module but the packages themselves, by its name."""
    return {name_of(path): ast.parse(path.read_bytes()) for path in PACKAGE.rglob("*.py") if path.stem != "__init__"}


def is_below(name: str, place: str) -> bool:
    return name == place or name.startswith(place + ".")


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


def imports_to_run(tree: ast.AST) -> set[str]:
    """As L{imports_at_once}, but for what is imported for types alone."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        return set()
    if isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        return set()
    return set(imported(tree)).union(*(imports_to_run(child) for child in ast.iter_child_nodes(tree)))


class LayoutTests(SynchronousTestCase):
    """Imports run one way."""

    def setUp(self) -> None:
        self.modules = modules()

    def using(self, name: str) -> list[str]:
        """@return: the modules that import a name."""
        return sorted(module for module, tree in self.modules.items() if name in imports(tree))

    def test_every_module_has_its_place(self) -> None:
        self.assertEqual({module.partition(".")[0] for module in self.modules} - set(LAYERS), set())

    def test_few_names(self) -> None:
        """The package has few names at the top."""
        names = [path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
        self.assertLessEqual(len(names), 19)

    def test_imports_run_one_way(self) -> None:
        backwards = [
            f"{module} imports {name}"
            for module, tree in self.modules.items()
            for name in imports(tree)
            for parts in [name.split(".")]
            if parts[0] == "darner" and len(parts) > 1 and parts[1] in LAYERS
            and LAYERS.index(parts[1]) > LAYERS.index(module.partition(".")[0])
        ]
        self.assertEqual(backwards, [])

    def test_no_circles(self) -> None:
        """Nor do imports within a package run in circles, but for those that are there for types alone."""
        known = {
            module: {name[7:] for name in imports_to_run(tree) if name[7:] in self.modules}
            for module, tree in self.modules.items()
        }
        while True:
            ready = {module for module, needed in known.items() if not needed & set(known)}
            if not ready:
                break
            known = {module: needed for module, needed in known.items() if module not in ready}
        self.assertEqual(sorted(known), [])

    def test_packages_import_nothing(self) -> None:
        """So that the plugin, which is always loaded, costs nothing, and each module is imported by its own name."""
        for path in PACKAGE.rglob("__init__.py"):
            self.assertEqual(imports(ast.parse(path.read_bytes())), set(), path)

    def test_only_the_store_knows_leveldb(self) -> None:
        self.assertEqual(self.using("plyvel"), ["store.database", "store.opening", "store.writer"])

    def test_no_module_is_long(self) -> None:
        long = {
            name_of(path): lines
            for path in PACKAGE.rglob("*.py")
            for lines in [len(path.read_text().splitlines())]
            if lines > MOST_LINES
        }
        self.assertEqual(long, {})

    def test_global_reactor(self) -> None:
        """Reactor and clock come in through constructors; importing a module installs no reactor."""
        reactor = "twisted.internet.reactor"
        self.assertLessEqual(set(self.using(reactor)), set(REACTOR))
        at_once = {module for module, tree in self.modules.items() if reactor in imports_at_once(tree)}
        self.assertEqual(at_once, set())

    def test_command_line(self) -> None:
        """It is read before it is known whether TLS is needed, which comes with any of Twisted's transports."""
        program = "import sys, darner.cli.plugin; from twisted.scripts import twistd; print(*sys.modules)"
        loaded = set(run(sys.executable, "-c", program, cwd=Path()).stdout.split())
        self.assertIn("darner.cli.options", loaded)
        self.assertEqual(loaded & {"twisted.internet.tcp", "twisted.internet.endpoints", "OpenSSL"}, set())

    def test_only_the_program_knows_its_libraries(self) -> None:
        """They are installed by an extra; where it begins, it runs without them to say so."""
        for library in ("click", "rich"):
            users = {
                module for module, tree in self.modules.items()
                if any(is_below(name, library) for name in imports(tree))
            }  # fmt: skip
            self.assertEqual([module for module in users if not is_below(module, "commands")], [])
            self.assertNotIn("commands.entry", users)

    def test_only_the_log_in_etcd_knows_its_libraries(self) -> None:
        """They are installed by an extra, and imported where a cluster is asked for."""
        for library in ("grpc", "google"):
            users = {
                module for module, tree in self.modules.items()
                if any(is_below(name, library) for name in imports(tree))
            }  # fmt: skip
            self.assertNotEqual(users, set())
            self.assertEqual([module for module in users if not is_below(module, "cluster.etcd")], [])

    def test_the_program_imports_a_server_where_it_needs_one(self) -> None:
        """Its other commands begin without Twisted and LevelDB, which take longer to import than they to run."""
        program = "import sys; from darner.commands.entry import main; main(sys.argv[1:]); print(*sys.modules)"
        for arguments in (("--version",), ("put", "--help"), ("get", "--help"), ("move", "--help")):
            loaded = set(run(sys.executable, "-c", program, *arguments, cwd=Path()).stdout.splitlines()[-1].split())
            self.assertIn("click", loaded)
            self.assertEqual(loaded & {"twisted", "plyvel", "darner.cli"}, set(), arguments)

    def test_no_twisted(self) -> None:
        """The protocols as bytes and the plain data know nothing of Twisted."""
        for module, tree in self.modules.items():
            if any(is_below(module, place) for place in PLAIN):
                self.assertEqual([name for name in imports(tree) if name.startswith("twisted")], [], module)


class DoorTests(SynchronousTestCase):
    """What front ends may use."""

    REGISTERING = frozenset({"put", "read", "consumed", "follow", "unless_put", "verdict", "moved", "changed"})

    OWNER = frozenset({"apply", "names", "load", "stop", "health", "reclaimer"})
    """What the service uses besides, as it makes the queues."""

    def setUp(self) -> None:
        self.modules = modules()

    def attributes(self, module: str, *owners: str) -> set[str]:
        """@return: what is used of anything that is called one of C{owners}, or returned by a method called so."""

        def last(node: ast.AST) -> str:
            if isinstance(node, ast.Call):
                return last(node.func)
            return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""

        return {
            node.attr
            for node in ast.walk(self.modules[module])
            if isinstance(node, ast.Attribute) and last(node.value) in owners
        }

    def test_only_queues_tell_the_commit_what_replies_depend_on(self) -> None:
        """Only the queues register replies with the commit, so no front end can forget it."""
        for module in self.modules:
            if not is_below(module, "queues"):
                used = self.attributes(module, "commit", "_commit")
                self.assertEqual(used & self.REGISTERING, set(), module)
        self.assertIn("put", self.attributes("queues.putting", "commit", "_commit"))

    def test_what_front_ends_use_of_the_queues(self) -> None:
        (interface,) = (
            node for node in self.modules["queues.front_end"].body if isinstance(node, ast.ClassDef)
        )
        self.assertEqual(IQueues.__module__, "darner.queues.front_end")
        names = {
            ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else node.name
            for node in interface.body
            if isinstance(node, (ast.AnnAssign, ast.FunctionDef))
        }
        self.assertLessEqual(len(names), 32)
        queues = Server().queues
        self.assertEqual([name for name in names if not hasattr(queues, name)], [])
        used: set[str] = set()
        for module in self.modules:
            if is_below(module, "front") or is_below(module, "web"):
                used |= self.attributes(module, "queues", "_queues")
        self.assertEqual(used, names)
        self.assertLessEqual(self.attributes("service", "queues", "_running", "Queues"), names | self.OWNER)

    def test_every_request_says_what_rights_it_needs(self) -> None:
        """Each also has a performer, except those with a payload, and plain reads."""
        kinds = requests.Request.__subclasses__()
        self.assertGreater(len(kinds), 20)
        self.assertEqual([kind for kind in kinds if not {"allowed", "for_all"} & set(vars(kind))], [])
        self.assertRaises(NotImplementedError, requests.Request().allowed, Grant(Rights()))
        payload = {requests.Set, requests.PutItems, requests.Get}
        self.assertEqual(set(PERFORMERS), set(kinds) - payload)
        classes = {node.name for node in self.modules["values.requests"].body if isinstance(node, ast.ClassDef)}
        self.assertEqual(classes, {kind.__name__ for kind in kinds} | {"Request", "Permissions"})

    def test_sessions_spell_nothing(self) -> None:
        for module in ("session", "commands", "client_reads", "waits", "log_in", "outbox"):
            tree = self.modules[f"front.{module}"]
            self.assertEqual([name for name in imports(tree) if "memcache" in name or "kestrel" in name], [], module)


class CompiledTests(SynchronousTestCase):
    """Compiled modules follow the rules in `docs/design/compiled.rst`."""

    def setUp(self) -> None:
        setup = run_path(str(PACKAGE.parent / "setup.py"), run_name="darner_setup")
        self.paths = setup["compiled"]()
        self.classes = [
            (path, node)
            for path in self.paths
            for node in ast.parse(PACKAGE.parent.joinpath(path).read_bytes()).body
            if isinstance(node, ast.ClassDef)
        ]

    def test_what_runs_for_each_request(self) -> None:
        for module in ("front/session", "front/framing", "queues/fifo", "queues/commit", "store/batch", "net/port"):
            self.assertIn(f"darner/{module}.py", self.paths)

    def test_decorators(self) -> None:
        """With any other decorator mypyc makes no native class."""
        for module, node in self.classes:
            for decorator in node.decorator_list:
                self.assertIn(ast.unparse(decorator), ("dataclass", "dataclass(frozen=True)"), f"{module}.{node.name}")

    def test_bases(self) -> None:
        known = {node.name for _, node in self.classes} | {"Protocol", "NamedTuple", "dict[bytes, _Batch]"}
        known.add("Enum")
        known.add("QueueFactory")  # Twisted's, of which there is one, and not one for each client or request
        for module, node in self.classes:
            self.assertLessEqual({ast.unparse(base) for base in node.bases}, known, f"{module}.{node.name}")

    def test_logs(self) -> None:
        """A L{Logger} that is not a class attribute does not know its class."""
        for module, node in self.classes:
            for statement in node.body:
                self.assertNotIn("_log = ", ast.unparse(statement).partition("\n")[0], f"{module}.{node.name}")


class ImportsTests(SynchronousTestCase):
    """The tests above recognize every kind of import."""

    def test_ways(self) -> None:
        for statement, name in (
            ("import darner.store.leveldb", "darner.store.leveldb"),
            ("from darner.store.leveldb import LevelStore", "darner.store.leveldb"),
            ("from darner.store import records, leveldb", "darner.store.leveldb"),
            ("from . import store", "darner.store"),
            ("from .store import LevelStore", "darner.store"),
            ("if TYPE_CHECKING:\n from darner.store.leveldb import LevelStore", "darner.store.leveldb"),
            ("from twisted.internet import reactor", "twisted.internet.reactor"),
        ):
            self.assertIn(name, imports(ast.parse(statement)), statement)
            self.assertIn(name, imports_at_once(ast.parse(statement)), statement)

    def test_in_a_function(self) -> None:
        for function in ("def f():\n import plyvel", "class C:\n async def f(self):\n  import plyvel"):
            self.assertEqual(imports(ast.parse(function)), {"plyvel"})
            self.assertEqual(imports_at_once(ast.parse(function)), set())
