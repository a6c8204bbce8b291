"""What other libraries call losses: `tests/data/losses_of_libraries.json`, read from their wheels.

Nothing is installed or imported: the names are those that a file of the wheel exports, and those of
the metrics of torchmetrics that say that they have a gradient.

    pip download --no-deps --dest WHEELS monai==1.6.1 ...
    python -m tests.losses_of_libraries WHEELS
"""

import ast
import json
import re
import sys
import zipfile
from importlib import metadata
from pathlib import Path

FILE = Path(__file__).parent / "data" / "losses_of_libraries.json"
# Private names, constants, modules and base classes.
NO_LOSS = re.compile(r"_.*|[A-Z_0-9]+|annotations|functional|os|one_hot|Loss|MIKernel")


def exported(source):
    """The names of `__all__` if there is one, else all that a module defines or imports."""
    stated, found = [], []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            found += names
            stated += ast.literal_eval(node.value) if names == ["__all__"] else []
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.append(node.name)
    return [name for name in stated or found if not NO_LOSS.fullmatch(name)]


def losses_of_embeddings(source):
    """Without base classes, helpers and what a loss returns."""
    helper = re.compile(r"Base\w+|\w+Mixin|\w+Components|Whitening2d|roi_\w+")
    return [name for name in exported(source) if not helper.fullmatch(name)]


def losses_of_boxes(source):
    return [name for name in exported(source) if name.endswith("_loss")]


def losses_of_signals(source):
    return re.findall(r"^class (\w+Loss)\(", source, re.MULTILINE)


def classes(source):
    return re.findall(r"^class (\w+)\b", source, re.MULTILINE)


def measures(source):
    """The classes that say in their first line that they compare, or that they are a penalty."""
    says_so = r"^class (\w+)\(.*\n    \"{3}\n    .*(?: between |error|penalty)"
    return re.findall(says_so, source, re.MULTILINE)


def differentiable(source):
    """The classes that say so of themselves."""
    says_so = re.compile(r"    is_differentiable(: [^=]+)? = True$", re.MULTILINE)
    classes = re.findall(r"^class (\w+)\(.*?(?=^\S|\Z)", source, re.MULTILINE | re.DOTALL)
    bodies = re.split(r"^class \w+\(", source, flags=re.MULTILINE)[1:]
    pairs = zip(classes, bodies, strict=True)
    return [name for name, body in pairs if says_so.search(body)]


# Library, its package, the files that name its losses, and how.
LIBRARIES = {
    "MONAI": ("monai", r"monai/losses/__init__\.py", exported),
    "segmentation_models": ("segmentation_models", r"segmentation_models/losses\.py", exported),
    "segmentation_models.pytorch": (
        "segmentation_models_pytorch",
        r"segmentation_models_pytorch/losses/__init__\.py",
        exported,
    ),
    "torchvision": ("torchvision", r"torchvision/ops/__init__\.py", losses_of_boxes),
    "TensorFlow Addons": (
        "tensorflow_addons",
        r"tensorflow_addons/losses/__init__\.py",
        exported,
    ),
    "kornia": ("kornia", r"kornia/losses/__init__\.py", exported),
    "torchmetrics": ("torchmetrics", r"torchmetrics/(?!functional)\w+/\w+\.py", differentiable),
    "optax": ("optax", r"optax/losses/__init__\.py", exported),
    "pytorch-metric-learning": (
        "pytorch_metric_learning",
        r"pytorch_metric_learning/losses/__init__\.py",
        losses_of_embeddings,
    ),
    "lightly": ("lightly", r"lightly/loss/__init__\.py", losses_of_embeddings),
    "auraloss": ("auraloss", r"auraloss/(freq|time)\.py", losses_of_signals),
    "keras-rs": ("keras_rs", r"keras_rs/losses/__init__\.py", exported),
    "VoxelMorph": ("voxelmorph", r"voxelmorph/nn/losses\.py", classes),
    "neurite": ("neurite", r"neurite/nn/modules\.py", measures),
}


def losses_of(library, files):
    """The names of the losses of a library, from its files: `{path: function that reads it}`."""
    _, pattern, names_of = LIBRARIES[library]
    sources = [read() for path, read in files.items() if re.fullmatch(pattern, path)]
    return sorted({name for source in sources for name in names_of(source)})


def files_of_wheel(wheel):
    return {path: lambda path=path: wheel.read(path).decode() for path in wheel.namelist()}


def files_of_installed(library):
    """The files of an installed library; None if it is not installed in the version of the list."""
    package = LIBRARIES[library][0]
    try:
        found = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return None
    if found.version != json.loads(FILE.read_text())[library]["version"]:
        return None
    return {str(path): path.read_text for path in found.files or ()}


def main(folder):
    found = {}
    for library, (package, _, _) in LIBRARIES.items():
        [path] = Path(folder).glob(f"{package}-*.whl")
        with zipfile.ZipFile(path) as wheel:
            names = losses_of(library, files_of_wheel(wheel))
        version = path.name.split("-")[1].split("+")[0]
        found[library] = {"version": version, "names": names}
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
