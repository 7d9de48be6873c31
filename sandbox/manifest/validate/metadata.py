"""metadata of every kind (apimachinery `pkg/api/validation/objectmeta.go`)."""

from __future__ import annotations

from sandbox.manifest.models import meta_v1
from sandbox.manifest.nodes import Path
from sandbox.manifest.problems import Problems
from sandbox.manifest.validate.check import check_required, check_text
from sandbox.manifest.validate.names import dns_label, dns_subdomain, label_value, qualified_name

_ANNOTATIONS_MAX_BYTES = 256 << 10


def validate_metadata(metadata: meta_v1.ObjectMeta, problems: Problems) -> None:
    path: Path = ("metadata",)
    if check_required(problems, (*path, "name"), metadata.name):
        check_text(problems, (*path, "name"), metadata.name, dns_subdomain)
    check_text(problems, (*path, "namespace"), metadata.namespace, dns_label)
    validate_labels(metadata.labels, (*path, "labels"), problems)
    total = 0
    for key, value in (metadata.annotations or {}).items():
        if wrong := qualified_name(key.lower()):
            problems.add((*path, "annotations", key), wrong, key=True)
        total += len(key.encode()) + len((value or "").encode())
    if total > _ANNOTATIONS_MAX_BYTES:
        problems.add(
            (*path, "annotations"), f"expected at most {_ANNOTATIONS_MAX_BYTES} bytes of annotations, got {total}"
        )


def validate_labels(labels: dict[str, str] | None, path: Path, problems: Problems) -> None:
    for key, value in (labels or {}).items():
        if wrong := qualified_name(key):
            problems.add((*path, key), wrong, key=True)
        check_text(problems, (*path, key), value, label_value)
