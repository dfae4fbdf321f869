"""Builds manifests with kustomize, reads YAML, and checks documents against the schemas of who will read them.

It decides nothing about Porchlight; what the documents must say is asked in manifests.rs. Documents go in and out as
JSON, because that is what the tests read.

  manifests.py build FOLDER   prints the documents that kustomize makes of a folder
  manifests.py read FILE      prints the documents of a YAML file
  manifests.py check          reads documents from standard input, prints every problem
"""

import functools
import json
import subprocess
import sys
from pathlib import Path

import yaml

# The oldest that is still looked after, and the newest that has schemas.
KUBERNETES = ["1.34", "1.37"]
HERE = Path(__file__).parent


def documents_in(text):
    return [document for document in yaml.safe_load_all(text) if document]


def build(folder):
    kubectl = Path(sys.executable).parent / "kubectl"
    made = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, timeout=300)
    if made.returncode != 0 or made.stderr:
        sys.exit(made.stderr or f"kustomize ended with {made.returncode}")
    return documents_in(made.stdout)


@functools.cache
def schema_of(version, name):
    """One of the files that kubernetes-validate brings along; None when there is no such kind."""
    import kubernetes_validate.utils as schemas

    try:
        return schemas.schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/{name}.json", version)
    except FileNotFoundError:
        return None


@functools.cache
def definitions_of(version):
    """What all kinds of a version refer to, looked through once: that takes longer than all documents together."""
    from referencing import Registry, Resource

    return (Resource.from_contents(schema_of(version, "_definitions")) @ Registry()).crawl()


def core_problems(document):
    """Kubernetes' own kinds, in the strict form of their schemas."""
    import jsonschema
    from referencing import Resource

    group, _, version_of_kind = document.get("apiVersion", "").rpartition("/")
    group = group.split(".")[0]
    name = "-".join(part for part in [document["kind"].lower(), group, version_of_kind] if part)
    for version in KUBERNETES:
        schema = schema_of(version, name)
        if schema is None:
            yield f"Kubernetes {version} has no {document['kind']} in {document.get('apiVersion')}"
            continue
        registry = Resource.from_contents(schema) @ definitions_of(version)
        for error in jsonschema.Draft202012Validator(schema, registry=registry).iter_errors(document):
            yield f"Kubernetes {version}: {at(error.path)}{error.message}"


def model_problems(model, document):
    """A kind that comes as a Python class: what the class does not know is lost on the way through it."""
    import pydantic

    try:
        read = model.model_validate(document)
    except pydantic.ValidationError as error:
        for problem in error.errors():
            yield f"{at(problem['loc'])}{problem['msg']}"
        return
    yield from lost(document, read.model_dump(by_alias=True, exclude_unset=True, mode="json"), [])


def lost(before, after, path):
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after:
                yield f"{at([*path, key])}is unknown"
            else:
                yield from lost(value, after[key], [*path, key])
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after)):
            yield from lost(one, other, [*path, index])
    elif before != after or type(before) is not type(after):
        yield f"{at(path)}{before!r} is taken for {after!r}"


def definition_problems(document):
    """A kind that has no package: its fields as we put them down; what Kubernetes owns of it is Kubernetes' schema."""
    import jsonschema

    schema = json.loads((HERE / "rabbitmqcluster.json").read_text())
    for version in KUBERNETES:
        validator = jsonschema.Draft202012Validator(schema, registry=definitions_of(version))
        for error in validator.iter_errors(document):
            yield f"{at(error.path)}{error.message}"


def at(path):
    return ".".join(str(part) for part in path) + ": "


def problems_of(document):
    kind = (document.get("apiVersion", ""), document.get("kind", ""))
    if kind == ("rabbitmq.com/v1beta1", "RabbitmqCluster"):
        return definition_problems(document)
    if kind[0] == "keda.sh/v1alpha1":
        from cloudcoil.models.keda import v1alpha1 as models
    elif kind[0] == "monitoring.coreos.com/v1":
        from cloudcoil.models.prometheus_operator import v1 as models
    else:
        return core_problems(document)
    model = getattr(models, kind[1], None)
    return model_problems(model, document) if model else [f"{kind[0]} has no {kind[1]}"]


def check(documents):
    for document in documents:
        name = f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"
        for problem in problems_of(document):
            yield f"{name}: {problem}"


def main():
    match sys.argv[1:]:
        case ["build", folder]:
            answer = build(folder)
        case ["read", file]:
            answer = documents_in(Path(file).read_text())
        case ["check"]:
            answer = list(check(json.load(sys.stdin)))
        case _:
            sys.exit(__doc__)
    json.dump(answer, sys.stdout, default=str)


main()
