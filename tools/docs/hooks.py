"""What mkdocs needs beside docs/: pages of files that lie elsewhere in the repository.

The pages in docs/ link to sources, configs and folders, as they are read in the
repository too. In the site each such link leads to a page that shows the file.
"""

import ast
import html
import os
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]

#: Files of the repository's root that are pages.
ROOT_PAGES = {
    "overview.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
}
#: Pages of the API, and the packages whose public classes and functions they describe.
API = {
    "models": ["models"],
    "losses": ["models/losses", "models/ops"],
    "hooks": ["engine/hooks"],
    "diagnostics": ["engine/hooks/diagnostics"],
    "engine": ["engine/[!h_]*"],  # not hooks
    "datasets": ["datasets", "datasets/transforms", "datasets/transforms/batch"],
    "evaluation": ["evaluation"],
    "checkpoints": ["checkpoints"],
    "visualization": ["visualization"],
    "command_line": ["cli"],
}
LANGUAGES = {".py": "python", ".sh": "bash", ".yml": "yaml", ".json": "json"}
EQUATION = re.compile(
    r'<(span|div) class="arithmatex">\\([\[(])(.*?)\\[\])]</\1>', re.S
)
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)")


def on_files(files, config):
    """Add the pages that are made here, and those of all files that they link to."""
    pages = {
        page: rewrite_links((ROOT / source).read_text(), source, page)
        for page, source in ROOT_PAGES.items()
        if (ROOT / source).exists()
    }
    for name, packages in API.items():
        directives = [f"::: {path}" for path in public_objects(packages)]
        title = f"# {name.replace('_', ' ').capitalize()}"
        pages[f"api/{name}.md"] = "\n\n".join([title, *directives])
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))

    linked = set()
    for source in [*ROOT_PAGES.values(), *_docs()]:
        if (ROOT / source).exists():
            linked |= outside_docs((ROOT / source).read_text(), source)
    while linked:
        path = linked.pop()
        page = _page_of(path)
        if files.get_file_from_path(page) is None:
            shown = _show(path)
            linked |= outside_docs(shown, path)
            text = rewrite_links(shown, path, page)
            file = File.generated(config, page, content=text)
            file.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(file)
    return files


def on_page_markdown(markdown, page, config, files):
    """Let links lead to pages of the site."""
    source = f"docs/{page.file.src_uri}"
    if page.file.generated_by:
        return markdown
    return rewrite_links(markdown, source, page.file.src_uri)


def on_page_content(content, page, config, files):
    """Write equations as MathML, which browsers show without a script."""
    return EQUATION.sub(_mathml, content)


def public_objects(packages: list[str]) -> list[str]:
    """Classes and functions that packages import from their own modules.

    By the path of the module that defines them: a package may have a module and a
    function of the same name.

    Args:
        packages (list[str]): Folders in snclr_mm/, with wildcards.
    """
    found = []
    folders = [f for package in packages for f in (ROOT / "snclr_mm").glob(package)]
    for folder in folders:
        init = folder / "__init__.py"
        if not init.exists():
            continue
        for node in ast.parse(init.read_text()).body:
            if not isinstance(node, ast.ImportFrom) or node.level != 1:
                continue
            module = folder / f"{node.module}.py"
            if module.exists():
                dotted = ".".join(module.relative_to(ROOT).with_suffix("").parts)
                defined = {
                    part.name
                    for part in ast.parse(module.read_text()).body
                    if isinstance(part, ast.ClassDef | ast.FunctionDef)
                }
                names = [alias.name for alias in node.names if alias.name in defined]
                found += [f"{dotted}.{name}" for name in names]
    return found


def outside_docs(text: str, source: str) -> set[str]:
    """Files and folders of the repository outside docs/ that a file links to.

    Args:
        text (str): Markdown.
        source (str): The file's path in the repository, which links start from.
    """
    targets = {_resolve(link, source) for link in LINK.findall(text)}
    return {
        target
        for target in targets
        if (ROOT / target).exists() and _page_of(target).startswith("files/")
    }


def rewrite_links(text: str, source: str, page: str) -> str:
    """Make links of the repository links of the site.

    Args:
        text (str): Markdown.
        source (str): Its path in the repository, which links start from.
        page (str): Its path in the site's sources.
    """

    def new(match: re.Match) -> str:
        target = _resolve(match[1], source)
        if not (ROOT / target).exists():
            return match[1]  # mkdocs says that it is not there
        return posixpath.relpath(_page_of(target), posixpath.dirname(page) or ".")

    return LINK.sub(new, text)


def _docs() -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")]


def _resolve(link: str, source: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _page_of(path: str) -> str:
    """The path in the site's sources of a path in the repository."""
    for page, source in ROOT_PAGES.items():
        if path == source:
            return page
    if path.startswith("docs/") and not (ROOT / path).is_dir():
        return path.removeprefix("docs/")
    return f"files/{path}.md"


def _show(path: str) -> str:
    """A file as code, or a folder as a list of its files."""
    target = ROOT / path
    search = "---\nsearch:\n  exclude: true\n---\n"
    if target.is_dir():
        names = sorted(
            f"{entry.name}"
            for entry in os.scandir(target)
            if entry.is_file() and not entry.name.endswith((".pyc", ".png"))
        )
        links = "\n".join(f"- [{name}]({target.name}/{name})" for name in names)
        return f"{search}# {path}\n\n{links}\n"
    language = LANGUAGES.get(target.suffix, "text")
    return f"{search}# {path}\n\n````{language}\n{target.read_text()}\n````\n"


def _mathml(equation: re.Match) -> str:
    display = "block" if equation[2] == "[" else "inline"
    return convert(html.unescape(equation[3]), display=display)
