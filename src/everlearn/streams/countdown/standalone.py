"""The verifier as one file that runs where everlearn isn't installed, made of the verifier's own source.

>>> "everlearn" in source_of("judge"), "eval(" in source_of("judge")
(False, False)
"""

import ast
import inspect
from types import ModuleType

from everlearn.streams.countdown import expression, groups, verify

MODULES = (groups, expression, verify)  # in the order in which they use each other
OURS = "everlearn"


def source_of(*names: str) -> str:
    """Return Python source that defines these functions of the verifier, with all they rest on and nothing else.

    Args:
        names: of functions in `everlearn.streams.countdown.verify`, or of what it uses.

    Raises:
        KeyError: if one isn't defined there.
    """
    statements = [(module, node) for module in MODULES for node in ast.parse(inspect.getsource(module)).body]
    defined = {name: node for _, node in statements for name in _defines(node)}
    needed, waiting = set(), list(names)
    while waiting:
        node = defined[waiting.pop()]
        if node not in needed:
            needed.add(node)
            waiting.extend(used for used in _uses(node) if used in defined)
    chosen = [(module, node) for module, node in statements if node in needed]
    imports = sorted(ast.unparse(node) for _, node in chosen if isinstance(node, ast.Import | ast.ImportFrom))
    definitions = [_text(module, node) for module, node in chosen if not isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n\n".join(["\n".join(imports), *definitions]) + "\n"


def _defines(node: ast.stmt) -> list[str]:
    """Return the names that a statement gives a meaning; an import of ours gives none, for its source is here."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module.split(".")[0] != OURS):
        return [alias.asname or alias.name for alias in node.names]
    return []


def _uses(node: ast.stmt) -> set[str]:
    """Return the names in a statement; annotations in quotes name what is defined beside them anyway."""
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def _text(module: ModuleType, node: ast.stmt) -> str:
    """Return a statement as it stands in its module, with its decorators and the comment at its end."""
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
    return "\n".join(inspect.getsource(module).splitlines()[first - 1 : node.end_lineno])
