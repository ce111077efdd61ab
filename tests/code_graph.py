"""Which of our files some code uses: the names that it mentions are followed, to functions, classes and methods.

To import a file is not to use it, for of ten functions in it a stage may call one. So a function counts where code that
counts mentions its name, and a method where its class and its name are mentioned both: of which class an object is,
nobody looks. That finds a method too many at times, and none too few. Imports inside functions are followed like all.
"""

import ast
from functools import cache

OURS = ("tillmap", "stages")


class Module:
    """A file's definitions and imports by name."""

    def __init__(self, name, path):
        self.name, self.path = name, path
        self.symbols = {}
        self.imports = {}  # a name here: (module, name there)
        self.run = []  # what else is run when the file is
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in OURS:
                self.imports |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                ours = [alias.name for alias in node.names if alias.name.partition(".")[0] in OURS]
                assert not ours, f"{path}: write `from package import module`, which can be followed"
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                self.symbols[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                names = (found.id for found in ast.walk(node) if isinstance(found, ast.Name))
                self.symbols |= dict.fromkeys((name for name in names if name not in self.symbols), node)
            elif not isinstance(node, ast.Import | ast.ImportFrom):
                self.run.append(node)


class Uses:
    """Follows names from where it is told to start. `files` are the paths that count, relative to `root`.

    Code for which `left_out(path)` is true does not count and is not followed; `seen` has the names that were reached,
    as (module, name).
    """

    def __init__(self, root, left_out):
        self.root, self.left_out = root, left_out
        self.files, self.seen = set(), set()
        self._module = cache(lambda name: Module(name, self._find(name)))
        self._mentioned = set()  # attribute names, and (class, name) where the class is known
        self._waiting = []  # methods whose class was mentioned, but not their name: (names, module, node)

    def start(self, name):
        """At a module that is run."""
        module = self._module(name)
        for node in module.run:
            self._follow(module, node)

    def start_at_classes(self, name):
        """At the classes of a module, which something like a registry hands out."""
        module = self._module(name)
        for symbol, node in module.symbols.items():
            if isinstance(node, ast.ClassDef):
                self._reach(name, symbol)

    def _find(self, name):
        place = (self.root if name.partition(".")[0] == "stages" else self.root / "src").joinpath(*name.split("."))
        files = place.with_suffix(".py"), place / "__init__.py"
        return next((file for file in files if file.is_file()), None)

    def _reach(self, name, symbol):
        if (name, symbol) in self.seen:
            return
        self.seen.add((name, symbol))
        if self.left_out(str(self._find(name).relative_to(self.root))):
            return
        module = self._module(name)
        if symbol in module.imports:
            self._reach(*module.imports[symbol])
        elif isinstance(module.symbols.get(symbol), ast.ClassDef):
            self._reach_class(module, symbol, {}, ())
        elif symbol in module.symbols:
            self._follow(module, module.symbols[symbol])

    def _reach_class(self, module, symbol, overridden, children):
        """A class, and those it inherits from, without the methods that one of its `children` has of its own."""
        node, family = module.symbols[symbol], (*children, (module.name, symbol))
        methods = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
        for part in (*node.decorator_list, *node.body):
            if part not in methods.values() and not _is_flag(part):
                self._follow(module, part)
        for name, part in methods.items():
            if name not in overridden:
                self._wait(name, family, module, part)
        for base in node.bases:
            found = self._resolve(module, base)
            if found:
                self.seen.add(found)
                self._reach_class(self._module(found[0]), found[1], overridden | methods, family)

    def _wait(self, name, family, module, node):
        names = {name, *((known, name) for known in family)}
        if name.startswith("__") or names & self._mentioned:
            self._follow(module, node)
        else:
            self._waiting.append((names, module, node))

    def _mention(self, name):
        if name in self._mentioned:
            return
        self._mentioned.add(name)
        called = [waiting for waiting in self._waiting if name in waiting[0]]
        self._waiting = [waiting for waiting in self._waiting if name not in waiting[0]]
        for _, module, node in called:
            self._follow(module, node)

    def _follow(self, module, node):
        """All that a piece of code mentions."""
        path = str(module.path.relative_to(self.root))
        if self.left_out(path):
            return
        self.files.add(path)
        for found in ast.walk(node):
            if isinstance(found, ast.Name):
                target = self._resolve(module, found)
                if target:
                    self._reach(*target)
            elif isinstance(found, ast.Attribute):
                target = self._resolve(module, found.value)
                of_module = target and self._find(".".join(target))
                if of_module:
                    self._reach(".".join(target), found.attr)
                else:
                    self._mention((target, found.attr) if target else found.attr)

    def _resolve(self, module, node):
        """The (module, name) of ours that an expression stands for, where it is one name."""
        if not isinstance(node, ast.Name):
            return None
        name = (module.name, node.id)
        while True:
            module = self._module(name[0])
            if name[1] not in module.imports:
                return name if name[1] in module.symbols or self._find(".".join(name)) else None
            name = module.imports[name[1]]
            if self._find(".".join(name)):
                return name


def _is_flag(node):
    """A docstring, or what a class says of itself to all (`name: ClassVar[str] = ...`)."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.AnnAssign) and "ClassVar" in ast.dump(node.annotation)
