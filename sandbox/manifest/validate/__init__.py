"""What Kubernetes' API server would refuse, refused at the place in the file where it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.manifest.models import ConfigMap, KubeObject, Pod, Secret
from sandbox.manifest.problems import Problems
from sandbox.manifest.validate.data import validate_config_map, validate_secret
from sandbox.manifest.validate.metadata import validate_metadata
from sandbox.manifest.validate.pod import validate_pod

_RULES: dict[type, Callable[[Any, Problems], None]] = {
    Pod: validate_pod,
    ConfigMap: validate_config_map,
    Secret: validate_secret,
}


def validate(obj: KubeObject, problems: Problems) -> None:
    """Report everything that is wrong with a defaulted object."""
    assert obj.metadata is not None
    validate_metadata(obj.metadata, problems)
    _RULES[type(obj)](obj, problems)
