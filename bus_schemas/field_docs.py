"""The texts that stand under the fields of a class: settings and messages are documented where they are written."""

from __future__ import annotations

import ast
import inspect
from textwrap import dedent


def field_docs(type_: type) -> dict[str, str]:
    """The string under each annotated field of a class, its own alone; empty where there is none."""
    body = ast.parse(dedent(inspect.getsource(type_))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    name = ""
    for statement in body.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            docs[name] = ""
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and name:
            docs[name] = " ".join(str(statement.value.value).split())
            name = ""
        else:
            name = ""
    return docs
