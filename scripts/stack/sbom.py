"""What is in the images: a CycloneDX list of components, made from the pinned lists.

It has neither a time nor a random number in it, so the same list gives the same text. Hashes are
in the list itself, many for each component, and Debian's packages are the base image's to tell.
"""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.bom_ref import BomRef
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from indexer.index import __version__
from stack import ROOT
from stack.profiles import REQUIREMENTS

FOLDER = ROOT / "deploy" / "sbom"
IMAGES = ("gateway", "indexer")
_NAMESPACE = uuid.UUID("5f2c0a52-7d1c-4a0e-9a53-0c4b3f0e7c11")
_PIN = re.compile(r"^[^#\s][^\\\n]*", re.MULTILINE)


def file(image: str) -> Path:
    """Where the list of an image's components is."""
    return FOLDER / f"{image}.cdx.json"


def text(image: str) -> str:
    """What stands in it, according to the pinned list of that name."""
    pins = [Requirement(pin) for pin in _PIN.findall((REQUIREMENTS / f"{image}.txt").read_text())]
    bom = Bom(components=_components(pins))
    root = Component(
        name=f"groundserve-{image}",
        version=__version__,
        type=ComponentType.APPLICATION,
        bom_ref=BomRef(f"groundserve-{image}"),
        licenses=[DisjunctiveLicense(id="Apache-2.0")],
    )
    bom.metadata.component = root
    bom.register_dependency(root, bom.components)
    bom.serial_number = uuid.uuid5(_NAMESPACE, "\n".join([image, __version__, *map(str, pins)]))
    found = json.loads(JsonV1Dot6(bom).output_as_string())
    # The library puts the time there whether it is wanted or not.
    del found["metadata"]["timestamp"]
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def write() -> None:
    """Bring all of them up to date."""
    FOLDER.mkdir(exist_ok=True)
    for image in IMAGES:
        file(image).write_text(text(image))


def stale() -> list[str]:
    """The images whose list of components is not what their pinned list says."""
    return [
        image
        for image in IMAGES
        if not file(image).exists() or file(image).read_text() != text(image)
    ]


def _components(pins: list[Requirement]) -> Iterator[Component]:
    for pin in pins:
        name, version = canonicalize_name(pin.name), str(pin.specifier).removeprefix("==")
        where = [Property(name="environment-marker", value=str(pin.marker))] if pin.marker else []
        yield Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=BomRef(f"{name}@{version}"),
            purl=PackageURL("pypi", None, name, version),
            properties=where,
        )
